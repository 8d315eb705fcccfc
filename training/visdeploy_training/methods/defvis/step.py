"""DefVIS as a pure function of one clip: what is exported. There is no memory from one clip to the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visdeploy_training.methods.defvis.network import DefVIS
from visdeploy_training.model import VISModel


class ClipStep(nn.Module):
    """One clip in, raw results of all slots out.

    Args:
        model: A DefVIS network; its weights are shared, not copied.

    Attributes:
        input_names: Graph inputs.
        output_names: Graph outputs.
    """

    input_names = ("frames",)
    output_names = ("class_scores", "boxes", "mask_logits")

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        if not isinstance(model, DefVIS):
            raise TypeError(f"ClipStep takes a DefVIS network, not {type(model).__name__}")
        self.model = model

    def initial_state(self, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Nothing: a clip stands alone."""
        return {}

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Process one clip.

        Args:
            frames: Normalised RGB `[T, 3, H, W]`, T is the network's own number of frames.

        Returns:
            class_scores `[S, T, num_classes + 1]`: probabilities, column 0 is an unused id, column k class k - 1; what
            is missing to 1 is no object. boxes `[S, T, 4]`: centre and size as shares of the input's.
            mask_logits `[S, T, H / 4, W / 4]`.
        """
        output = self.model(frames.unsqueeze(0))
        scores = output.logits[-1, 0].softmax(dim=-1)[..., :-1]
        return scores, output.boxes[-1, 0], output.masks[0]
