"""Decoder of DefVIS: converts the slots of a clip to instances.

As in the published implementation, each slot is a track. Slots do not suppress each other.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from visdeploy.masks import Mask
from visdeploy.masks.resampling import resize_logits
from visdeploy.methods.base import Arrays, Parameters, take_output
from visdeploy.methods.clip import ClipDecoder, ClipInstance, Votes


class DecodeParameters(Parameters):
    """Field `decode` of the manifest.

    Attributes:
        frame_score_threshold: Minimum probability of the best class in a frame with a mask.
    """

    frame_score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.001


class DefVISDecoder(ClipDecoder[DecodeParameters]):
    """Decoder of DefVIS. See `Decoder` for the arguments.

    The vote of a frame consists of its best id and the probability of this id. The label of a track is the most
    frequent id, its score is the mean probability. Id 0 is not a class: a slot with this id is not an instance.
    """

    decode_model = DecodeParameters
    extra_values = 2

    def read(self, outputs: Arrays, *, length: int, height: int, width: int) -> list[ClipInstance]:
        """Return the slots that contain an object, see `ClipDecoder.read`.

        Args:
            outputs: `class_scores` float32 `[slots, frames, classes + 1]`, probabilities of the ids, and `mask_logits`
                float32 `[slots, frames, h, w]`.
            length: Number of frames of the clip.
            height: Rows of the original frames.
            width: Columns of the original frames.

        Raises:
            BundleError: An output is missing or malformed.
        """
        ids = len(self.classes) + 1
        scores = take_output(outputs, "class_scores", (None, None, ids), "float32")[:, :length]
        logits = take_output(outputs, "mask_logits", (*outputs["class_scores"].shape[:2], None, None), "float32")
        found = []
        for slot, slot_scores in enumerate(scores):
            best = slot_scores.argmax(-1)
            votes = np.concatenate([np.eye(ids)[best], slot_scores.max(-1, keepdims=True)], axis=1, dtype=np.float64)
            if votes.sum(0)[:ids].argmax() == 0:
                continue
            masks = [Mask.encode(resize_logits(logits[slot, t], height, width) > 0) for t in range(length)]
            if not any(mask.area for mask in masks):
                continue
            kept = votes[:, ids] >= self.decode_parameters.frame_score_threshold
            shown = (mask if keep and mask.area else None for mask, keep in zip(masks, kept, strict=True))
            found.append(ClipInstance(tuple(shown), votes, slot))
        return found

    def judge(self, total: Votes, frames: int) -> tuple[int, float, tuple[float, ...]]:
        """Return the id with most votes (the smallest after a tie), the mean probability, and the votes as shares."""
        counts = total[1:-1]
        return int(counts.argmax()), float(total[-1] / frames), tuple((counts / frames).tolist())
