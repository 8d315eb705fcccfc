"""Sources of frames (files, streams, images, arrays, cameras) and a writer of H.264 video.

OpenCV and PyAV are imported on first use.
"""

from visdeploy.video.opening import open_source
from visdeploy.video.source import Frame, Source, SourceReport
from visdeploy.video.writer import VideoWriter

__all__ = ["Frame", "Source", "SourceReport", "VideoWriter", "open_source"]
