"""Reading frames from anything that gives frames, and writing H.264 video. OpenCV and PyAV are imported on use."""

from visdeploy.video.opening import open_source
from visdeploy.video.source import Frame, Source, SourceReport
from visdeploy.video.writer import VideoWriter

__all__ = ["Frame", "Source", "SourceReport", "VideoWriter", "open_source"]
