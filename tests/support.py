"""Functions that create test data, for tests of several folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visdeploy.masks import Mask


def rectangle(height: int, width: int, y: int, x: int, h: int, w: int) -> Mask:
    """Return a mask of `height` by `width` pixels with one filled rectangle."""
    image = np.zeros((height, width), np.uint8)
    image[y : y + h, x : x + w] = 1
    return Mask.encode(image)


def square_video(path: Path, frames: int) -> Path:
    """Return a short video of a moving square, 160x96."""
    from visdeploy.video import VideoWriter

    with VideoWriter(path, 160, 96, 10) as writer:
        for t in range(frames):
            image = np.full((96, 160, 3), 90, np.uint8)
            image[20:60, 10 + 12 * t : 50 + 12 * t] = (220, 40, 30)
            writer.write(image)
    return path


def edit_json(path: Path, edit: Callable[[Any], Any]) -> Path:
    """Edit a JSON file in place."""
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return path


def exit_code(*words: object) -> int:
    """Return the exit code of one call of the command line."""
    from visdeploy.cli import main

    try:
        main([str(word) for word in words])
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0
