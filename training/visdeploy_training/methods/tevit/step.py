"""Exported form of TeViT: a pure function of one clip, without state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visdeploy_training.methods.tevit.network import TeViT
from visdeploy_training.model import VISModel


class ClipStep(nn.Module):
    """Module that computes the best pairs of a query and a class for one clip of any length.

    The masks are relative to the boxes; the decoder pastes them into the frames.

    Args:
        model: A TeViT network; its weights are shared, not copied.

    Attributes:
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs.
    """

    input_names = ("frames", "size")
    output_names = ("scores", "labels", "queries", "boxes", "mask_logits")

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        if not isinstance(model, TeViT):
            raise TypeError(f"ClipStep takes a TeViT network, not {type(model).__name__}")
        self.model = model

    def initial_state(self, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Return an empty state, because clips are processed independently."""
        return {}

    def forward(self, frames: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Process one clip.

        Args:
            frames: Normalised RGB `[T, 3, H, W]`, H and W multiples of 32, padded with zeros at the right and bottom.
            size: Height and width of the frames without padding, `[2]` int64.

        Returns:
            The R pairs with the largest mean score over the frames, in descending order. scores `[T, R]`: probability
            of the class in each frame. labels `[R]` int64. queries `[R]` int64; a query may occur with several labels.
            boxes `[T, R, 4]`: left, top, right, bottom, relative to the size of the frame without padding, possibly
            outside the frame. mask_logits `[T, R, 28, 28]`, within the boxes.
        """
        config = self.model.config
        output = self.model(frames.unsqueeze(0), size.unsqueeze(0))
        probabilities = output.logits[-1, 0].float().sigmoid()
        best = probabilities.mean(dim=0).flatten().topk(config.max_results).indices
        queries, labels = best // config.num_classes, best % config.num_classes
        scores = probabilities.flatten(1).index_select(1, best)
        boxes = output.boxes[-1, 0].index_select(1, queries)
        count, results = boxes.shape[:2]
        images = torch.arange(count, device=frames.device)[:, None].expand(count, results).flatten()
        logits = output.masks(config.num_stages - 1, images, queries.repeat(count))
        # select the mask of the class of each result
        channel = labels.repeat(count)[:, None, None, None].expand(-1, 1, *logits.shape[2:])
        masks = logits.gather(1, channel).squeeze(1).unflatten(0, (count, results))
        return scores, labels, queries, boxes / output.sizes, masks
