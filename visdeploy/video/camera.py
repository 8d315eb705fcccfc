"""Frames of a local camera, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from visdeploy.brief import shorten
from visdeploy.errors import SourceError
from visdeploy.video.source import Image, OnError, RawFrame, Source

_LAST_CAMERA = 9999


class CameraSource(Source):
    """Camera with an index. It is endless unless `max_frames` is given; timestamps are the times of the reads."""

    kind = "camera"

    def __init__(
        self,
        index: int,
        *,
        name: str | None = None,
        max_frames: int | None = None,
        start: int = 0,
        step: int = 1,
        on_error: OnError = "raise",
    ) -> None:
        if not isinstance(index, int) or not 0 <= index <= _LAST_CAMERA:  # OpenCV crashes for negative numbers
            seen = f"index {shorten(index)}"
            raise SourceError("cannot open a camera", seen=seen, expected=f"0 to {_LAST_CAMERA}")
        super().__init__(
            name or f"camera{index}", None, max_frames=max_frames, start=start, step=step, on_error=on_error
        )
        self._index = index
        self._capture: Any = None
        self._open()

    def _open(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(self._index)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"cannot open camera {self._index}",
                hint="Check that the camera is connected, not in use, and that this process may access it.",
            )
        self.fps = max(0.0, float(capture.get(cv2.CAP_PROP_FPS))) / self.step
        self._capture = capture
        return capture

    def _read(self) -> Iterator[RawFrame]:
        import cv2

        capture = self._capture or self._open()
        start: float | None = None
        while True:
            ok, image = capture.read()
            if not ok:
                raise SourceError(
                    f"camera {self._index} returned no frame after {self.delivered_frames} frames",
                    hint="The camera was unplugged or taken by another program.",
                )
            now = time.monotonic()
            start = now if start is None else start

            def convert(image: Any = image) -> Image:
                rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                return rgb

            yield now - start, convert

    def close(self) -> None:
        """Release the camera."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
