"""Resolution of overlapping masks, for the formats that store one instance per pixel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from visdeploy.masks import Mask
from visdeploy.results import FrameResult, Instance, VideoResult


def owner_map(frame: FrameResult) -> tuple[npt.NDArray[np.int32], int]:
    """Assign each pixel to the instance with the highest score; ties go to the lowest track id.

    Returns:
        Map `(height, width)` of positions in `frame.instances` plus one, 0 for the background; and the number of mask
        pixels that were assigned to another instance.
    """
    owners = np.zeros((frame.height, frame.width), np.int32)
    claimed = 0
    order = sorted(range(len(frame)), key=lambda i: (frame.instances[i].score, -frame.instances[i].track_id))
    for i in order:
        mask = frame.instances[i].mask
        owners[mask.decode()] = i + 1
        claimed += mask.area
    return owners, claimed - int(np.count_nonzero(owners))


def without_overlaps(frame: FrameResult) -> tuple[list[tuple[Instance, Mask]], int]:
    """Resolve the overlaps of one frame, and omit instances without remaining pixels.

    Returns:
        Instances with their resolved masks, in the order of the frame, and the number of reassigned pixels.
    """
    from pycocotools import mask as coco

    present = [i for i in frame if i.mask.area]
    if not present:
        return [], 0
    union = int(coco.area(coco.merge([i.mask.to_coco() for i in present])))
    if union == sum(i.mask.area for i in present):
        return [(i, i.mask) for i in present], 0
    owners, moved = owner_map(frame)
    resolved = [(instance, Mask.encode(owners == n + 1)) for n, instance in enumerate(frame)]
    return [(instance, mask) for instance, mask in resolved if mask.area], moved


def resolved(result: VideoResult) -> VideoResult:
    """Return the result as a format without overlaps restores it: resolved masks, no empty ones."""
    from dataclasses import replace

    tracks = {t.track_id: replace(t, masks={}) for t in result.tracks}
    for index, instance, mask in _walk(result):
        tracks[instance.track_id].masks[index] = mask
    return replace(result, tracks=list(tracks.values()))


def _walk(result: VideoResult) -> Iterator[tuple[int, Instance, Mask]]:
    for frame in result.frames():
        for instance, mask in without_overlaps(frame)[0]:
            yield frame.index, instance, mask
