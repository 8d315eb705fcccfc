"""From the raw results of one clip to its tracks (spec section 4). Everything is per slot: nothing competes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from visdeploy.masks import Mask
from visdeploy.results import Track
from visdeploy_training.methods.defvis.config import DefVISConfig


class SlotResult(NamedTuple):
    """One object of a clip of L frames.

    Attributes:
        slot: Which slot, from 0.
        category: Most frequent id over the frames, the smallest on a tie; 0 is no class.
        score: Mean of the frame scores.
        frame_scores: `[L]`, best probability of any id.
        frame_categories: `[L]` int64, its id.
        kept: `[L]` bool, False where the frame's score is too low to report a mask.
        masks: `[L, height, width]` bool.
    """

    slot: int
    category: int
    score: float
    frame_scores: Tensor
    frame_categories: Tensor
    kept: Tensor
    masks: Tensor


def most_frequent(ids: Tensor, count: int) -> int:
    """The most frequent of ids below `count`, the smallest on a tie."""
    votes = torch.bincount(ids, minlength=count).tolist()
    return int(votes.index(max(votes)))


def decode_clip(
    class_scores: Tensor, mask_logits: Tensor, config: DefVISConfig, *, length: int, height: int, width: int
) -> Iterator[SlotResult]:
    """The slots that show anything, one by one, so that only one slot's masks are ever held at full size.

    Args:
        class_scores: `[S, T, num_classes + 1]`, see `ClipStep`.
        mask_logits: `[S, T, h, w]`.
        config: Threshold.
        length: Frames that are wanted, the first ones.
        height: Rows of the original frames.
        width: Columns of the original frames.
    """
    scores, categories = class_scores[:, :length].max(dim=-1)
    for slot, logits in enumerate(mask_logits[:, :length].float()):
        full = F.interpolate(logits.unsqueeze(1), size=(height, width), mode="bilinear", align_corners=False)
        masks = full.squeeze(1) > 0  # the same as a probability above one half
        if not bool(masks.any()):
            continue
        yield SlotResult(
            slot,
            most_frequent(categories[slot], class_scores.shape[-1]),
            float(scores[slot].mean()),
            scores[slot],
            categories[slot],
            scores[slot] >= config.frame_score_threshold,
            masks,
        )


def clip_tracks(
    outputs: Mapping[str, Tensor], config: DefVISConfig, *, length: int, height: int, width: int
) -> list[Track]:
    """Tracks of one clip, numbered as they are found; slots whose best id is the unused one are no tracks.

    Args:
        outputs: Of `ClipStep`, by name.
        config: Threshold.
        length: Frames of the video that are in the clip.
        height: Rows of the original frames.
        width: Columns of the original frames.
    """
    tracks: list[Track] = []
    size = {"length": length, "height": height, "width": width}
    for found in decode_clip(outputs["class_scores"], outputs["mask_logits"], config, **size):
        if found.category == 0:
            continue
        shown = (found.kept & found.masks.flatten(1).any(dim=1)).nonzero().flatten().tolist()
        masks = {t: Mask.encode(found.masks[t].cpu().numpy()) for t in shown}
        tracks.append(Track(len(tracks), found.category - 1, found.score, masks))
    return tracks
