"""Sampling of the frames of a training clip from a video. Random numbers are drawn from torch's global generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch

from visdeploy.errors import DataError

Sampling: TypeAlias = Literal["random", "distinct", "near", "consecutive", "cyclic", "span"]


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


def span_frames(length: int, count: int, *, span: tuple[int, int]) -> list[int]:
    """Draw frames at nearly equal distances, in order: first a uniform span from first to last frame, then its start.

    This is the sampling of STEm-Seg (Athar et al., ECCV 2020). Frames between two whole numbers are rounded to the
    nearest one, halves to the even one. A frame can occur several times.

    Args:
        length: Number of frames of the video.
        count: Number of frames to draw.
        span: Minimum and maximum distance from the first to the last frame; at most `length - 1`.
    """
    distance = min(int(torch.randint(span[0], span[1] + 1, ())), length - 1)
    start = int(torch.randint(length - distance, ()))
    return [int(t) for t in np.round(np.linspace(start, start + distance, count))]


def clip_counts(lengths: Sequence[int], clips: int) -> list[int]:
    """Return the number of clips of each video, in proportion to its frames and rounded up, at least 1.

    Args:
        lengths: Number of frames of each video.
        clips: Number of clips of all videos before rounding.
    """
    frames = sum(lengths)
    return [max(1, -(-length * clips // frames)) for length in lengths]


def choose_clips(lengths: Sequence[int], clips: int | None, *, shortest: int, seed: int = 0) -> list[int]:
    """Choose the clips of an epoch: as many of each video as its length requires, of which random ones are left out.

    This is the choice of STEm-Seg (Athar et al., ECCV 2020). Videos of at most `shortest + 1` frames have no clips.
    Images occur once each.

    Args:
        lengths: Number of frames of each record; an image has one.
        clips: Number of clips of all videos; by default the number of their frames.
        shortest: Smallest distance of the last frame of a clip from the first one.
        seed: Seed of the random numbers.

    Returns:
        Index of the record of each clip, in ascending order.

    Raises:
        DataError: There are no images, and all videos are too short.
    """
    images = [i for i, length in enumerate(lengths) if length == 1]
    videos = [i for i, length in enumerate(lengths) if length > max(1, shortest + 1)]
    if not images and not videos:
        raise DataError(
            "no video has enough frames",
            seen=f"at most {max(lengths, default=0)}",
            expected=f"more than the span plus one, {shortest + 1}",
            hint="Use a smaller span.",
        )
    wanted = sum(lengths[i] for i in videos) if clips is None else clips
    if not videos:
        return images
    counts = clip_counts([lengths[i] for i in videos], wanted)
    found = [video for video, count in zip(videos, counts, strict=True) for _ in range(count)]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:wanted]
    return sorted(images + [found[i] for i in order.tolist()])
