"""Conversion of frames to `supervision.Detections`, for the annotators, zones and counters of supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from visdeploy.optional import require
from visdeploy.results import FrameResult

if TYPE_CHECKING:
    import supervision as sv


def to_detections(frame: FrameResult) -> sv.Detections:
    """Convert a frame.

    Args:
        frame: Result of the frame, with `n` instances.

    Returns:
        Detections with `xyxy` (float32, `(n, 4)`, pixels), `mask` (bool, `(n, height, width)`), `confidence` (float32),
        `class_id`, `tracker_id` (int) and `data["class_name"]`.

    Raises:
        DependencyError: The package supervision is not installed.
    """
    module = require("supervision", extra="formats", purpose="to_supervision()")
    count = len(frame)
    masks = np.zeros((count, frame.height, frame.width), bool)
    for i, instance in enumerate(frame):
        masks[i] = instance.mask.decode()
    detections: sv.Detections = module.Detections(
        xyxy=np.array([i.box for i in frame], np.float32).reshape(count, 4),
        mask=masks,
        confidence=np.array([i.score for i in frame], np.float32),
        class_id=np.array([i.label for i in frame], int),
        tracker_id=np.array([i.track_id for i in frame], int),
        data={"class_name": np.array([i.class_name for i in frame], dtype=str)},
    )
    return detections
