"""Decoder of TeViT: converts pairs of a query and a class to instances with masks in the frames."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import BundleError
from visdeploy.masks import Mask
from visdeploy.masks.resampling import paste_mask
from visdeploy.methods.base import Arrays, Parameters, take_output
from visdeploy.methods.clip import ClipDecoder, ClipInstance, Votes


class DecodeParameters(Parameters):
    """Field `decode` of the manifest.

    Attributes:
        mask_threshold: Minimum probability of a pixel inside a mask.
    """

    mask_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class TeViTDecoder(ClipDecoder[DecodeParameters]):
    """Decoder of TeViT. See `Decoder` for the arguments.

    The vote of a frame is the probability of the pair's class. The score of a track is the mean over its frames. If the
    classes of several clips differ, the label is the class with the largest sum, which is still divided by the number
    of all frames.
    """

    decode_model = DecodeParameters

    def read(self, outputs: Arrays, *, length: int, height: int, width: int) -> list[ClipInstance]:
        """Return every pair of the clip, see `ClipDecoder.read`. It is absent from frames in which its mask is empty.

        Args:
            outputs: `scores` float32 `[frames, pairs]`, `labels` and `queries` int64 `[pairs]`, `boxes` float32
                `[frames, pairs, 4]` relative to the frame, `mask_logits` float32 `[frames, pairs, h, w]` in the boxes.
            length: Number of frames of the clip.
            height: Rows of the original frames.
            width: Columns of the original frames.

        Raises:
            BundleError: An output is missing or malformed, or a label is out of range.
        """
        labels = take_output(outputs, "labels", (None,), "int64")
        pairs = len(labels)
        queries = take_output(outputs, "queries", (pairs,), "int64")
        scores = take_output(outputs, "scores", (None, pairs), "float32")
        boxes = take_output(outputs, "boxes", (len(scores), pairs, 4), "float32")
        logits = take_output(outputs, "mask_logits", (len(scores), pairs, None, None), "float32")
        if pairs and not 0 <= labels.min() <= labels.max() < self.values:
            raise BundleError(
                "the graph's output 'labels' is malformed",
                seen=f"{labels.min()} to {labels.max()}",
                expected=f"0 to {self.values - 1}",
                hint="Export the bundle again with this version.",
            )
        boxes = boxes * np.array([width, height, width, height], np.float32)
        probabilities = 1 / (1 + np.exp(-logits[:length].clip(-80, 80)))
        found = []
        for pair, label in enumerate(labels):
            votes = np.zeros((length, self.values))
            votes[:, label] = scores[:length, pair]
            shown = [self._mask(probabilities[t, pair], boxes[t, pair], height, width) for t in range(length)]
            found.append(ClipInstance(tuple(mask if mask.area else None for mask in shown), votes, int(queries[pair])))
        return found

    def _mask(self, values: npt.NDArray[np.float32], box: npt.NDArray[np.float32], height: int, width: int) -> Mask:
        return Mask.encode(paste_mask(values, box, height, width) >= np.float32(self.decode_parameters.mask_threshold))

    def judge(self, total: Votes, frames: int) -> tuple[int, float, tuple[float, ...]]:
        """Return the class with the largest sum (the smallest after a tie), and the means over the frames."""
        label = int(total.argmax())
        return label, float(total[label] / frames), tuple((total / frames).tolist())
