"""Sources of frames (files, streams, images, arrays, cameras) and a writer of H.264 video.

OpenCV and PyAV are imported on first use.
"""

from visdeploy.video.opening import is_live, is_repeatable, local_files, open_source
from visdeploy.video.source import Frame, Source, SourceReport
from visdeploy.video.verdict import Verdict
from visdeploy.video.writer import VideoWriter, check_ending

__all__ = [
    "Frame",
    "Source",
    "SourceReport",
    "Verdict",
    "VideoWriter",
    "check_ending",
    "is_live",
    "is_repeatable",
    "local_files",
    "open_source",
]
