"""Exported form of DefVIS: a pure function of one clip, without state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visdeploy_training.methods.defvis.network import DefVIS
from visdeploy_training.model import VISModel


class ClipStep(nn.Module):
    """Module that computes the raw results of all slots for one clip.

    Args:
        model: A DefVIS network; its weights are shared, not copied.

    Attributes:
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs.
    """

    input_names = ("frames",)
    output_names = ("class_scores", "boxes", "mask_logits")

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        if not isinstance(model, DefVIS):
            raise TypeError(f"ClipStep takes a DefVIS network, not {type(model).__name__}")
        self.model = model

    def initial_state(self, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Return an empty state, because clips are processed independently."""
        return {}

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Process one clip.

        Args:
            frames: Normalised RGB `[T, 3, H, W]`; T is the number of frames of the configuration.

        Returns:
            class_scores `[S, T, num_classes + 1]`: probabilities; column 0 is an unused id, column k is class k - 1.
            The rest to a sum of 1 is the probability of no object. boxes `[S, T, 4]`: centre and size relative to the
            size of the input. mask_logits `[S, T, H / 4, W / 4]`.
        """
        output = self.model(frames.unsqueeze(0))
        scores = output.logits[-1, 0].softmax(dim=-1)[..., :-1]
        return scores, output.boxes[-1, 0], output.masks[0]
