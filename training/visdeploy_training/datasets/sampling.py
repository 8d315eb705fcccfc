"""Sampling of the frames of a training clip from a video. Random numbers are drawn from torch's global generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch

Sampling: TypeAlias = Literal["random", "distinct", "near", "consecutive", "cyclic"]


def sample_frames(length: int, count: int, *, window: int = 20) -> list[int]:
    """Draw frames around a uniformly drawn reference frame, with replacement and in random order.

    The frames are in `[reference - window, reference + window)`, as far as the video has them.

    Args:
        length: Number of frames of the video.
        count: Number of frames to draw.
        window: Maximum distance from the reference frame.
    """
    reference = int(torch.randint(length, ()))
    first, end = max(0, reference - window), min(length, reference + window)
    return [int(i) for i in torch.randint(first, end, (count,))]


def distinct_frames(candidates: Sequence[int], count: int, *, first: int) -> list[int]:
    """Return a given frame, and others drawn without replacement and in random order.

    This is the sampling of TeViT (Yang et al., CVPR 2022).

    Args:
        candidates: At least `count` frames, including `first`.
        count: Number of frames of the result.
        first: First frame of the result.
    """
    others = [t for t in candidates if t != first]
    return [first, *(others[i] for i in torch.randperm(len(others))[: count - 1].tolist())]


def near_frames(candidates: Sequence[int], count: int, *, first: int, window: int) -> list[int]:
    """Draw other frames near a given one, each uniformly from the candidates at most `window` frames from it.

    Without such a candidate, the distance grows by `window` until there is one. If the given frame is the only
    candidate, it is repeated.

    Args:
        candidates: Frames to draw from, `first` among them.
        count: Frames of the result.
        first: The frame that the clip is drawn for, the first of the result.
        window: Largest distance from it, at least 1.
    """
    distances = {t: abs(t - first) for t in candidates if t != first}
    limit = -(-min(distances.values(), default=0) // window) * window
    others = [t for t, distance in distances.items() if distance <= limit] or [first]
    return [first, *(others[i] for i in torch.randint(len(others), (count - 1,)).tolist())]


def consecutive_frames(length: int, count: int) -> list[int]:
    """Draw consecutive frames, in order, from a uniform start; a shorter video is repeated, as in inference.

    Args:
        length: Number of frames of the video.
        count: Number of frames to draw.
    """
    start = int(torch.randint(max(0, length - count) + 1, ()))
    return [(start + t) % length for t in range(count)]


def cyclic_frames(length: int, count: int) -> list[int]:
    """Draw consecutive frames, in order, up to a uniform end; the last frame of the video precedes its first one.

    This is the sampling of DefVIS (Yarram et al., ICASSP 2022).

    Args:
        length: Number of frames of the video.
        count: Number of frames to draw.
    """
    end = int(torch.randint(length, ()))
    return [(end - (count - 1 - t)) % length for t in range(count)]
