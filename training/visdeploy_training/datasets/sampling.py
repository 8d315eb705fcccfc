"""Which frames of a video make a training clip (spec 11.2). All draws come from torch's generator."""

from __future__ import annotations

import torch


def sample_frames(length: int, count: int, *, window: int = 20) -> list[int]:
    """Draw frames around a uniformly drawn reference frame, with replacement and in no order.

    The window is `[reference - window, reference + window)`, cut to the video.

    Args:
        length: Frames of the video.
        count: Frames to draw.
        window: Largest distance from the reference frame.
    """
    reference = int(torch.randint(length, ()))
    first, end = max(0, reference - window), min(length, reference + window)
    return [int(i) for i in torch.randint(first, end, (count,))]
