"""Conversion of the instances of a clip to flat arrays, for saved streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.masks import Mask

Packed = tuple[tuple[Mask | None, ...], npt.NDArray[np.float64]]
"""Masks in each frame, and votes `[frames, values]`, of one instance."""


def pack_instances(instances: Sequence[Packed], values: int) -> dict[str, npt.NDArray[Any]]:
    """Return instances as arrays, to be restored by `unpack_instances`.

    Args:
        instances: Masks and votes of each instance.
        values: Length of a vote.
    """
    counts = [b"" if mask is None else mask.counts for masks, _ in instances for mask in masks]
    votes = [vote for _, vote in instances]
    return {
        "clip.lengths": np.array([len(each) for each in counts], np.int64),
        "clip.counts": np.frombuffer(b"".join(counts), np.uint8),
        "clip.votes": np.concatenate(votes) if votes else np.zeros((0, values)),
    }


def unpack_instances(
    arrays: Mapping[str, npt.NDArray[Any]], number: int, frames: int, size: tuple[int, int], values: int
) -> list[Packed]:
    """Restore instances from the arrays of `pack_instances`, and check every mask.

    Args:
        arrays: Arrays of `pack_instances`.
        number: Number of instances.
        frames: Number of frames of the clip.
        size: Rows and columns of the masks.
        values: Length of a vote.

    Raises:
        KeyError: An array is missing.
        ValueError: The arrays are inconsistent.
        DataError: A mask is damaged.
    """
    lengths, counts, votes = arrays["clip.lengths"], arrays["clip.counts"].tobytes(), arrays["clip.votes"]
    if lengths.shape != (number * frames,) or (lengths < 0).any() or lengths.sum() != len(counts):
        raise ValueError(f"{lengths.shape} masks in {len(counts)} bytes, of {number} instances in {frames} frames")
    if votes.shape != (number * frames, values):
        raise ValueError(f"votes {votes.shape} of {number} instances in {frames} frames")
    ends = np.cumsum(lengths).tolist()
    masks = [
        Mask.from_coco({"size": size, "counts": counts[end - length : end]}) if length else None
        for length, end in zip(lengths.tolist(), ends, strict=True)
    ]
    return [
        (tuple(masks[i * frames : (i + 1) * frames]), np.array(votes[i * frames : (i + 1) * frames], np.float64))
        for i in range(number)
    ]
