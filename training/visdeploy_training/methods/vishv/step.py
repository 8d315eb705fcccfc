"""Exported form of VIShv: a pure function of one clip of a fixed number of frames, without state and without flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy_training.methods.vishv.embedding import bandwidths
from visdeploy_training.methods.vishv.inference import output_names
from visdeploy_training.methods.vishv.network import VIShv, foreground_logits
from visdeploy_training.model import VISModel


class ClipStep(nn.Module):
    """Module that computes embeddings, bandwidths, seediness and semantic logits of one clip.

    Args:
        model: A VIShv network; its weights are shared, not copied.

    Attributes:
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs.
    """

    input_names = ("frames",)

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        if not isinstance(model, VIShv):
            raise TypeError(f"ClipStep takes a VIShv network, not {type(model).__name__}")
        self.model = model
        self.output_names = output_names(model.config)

    def initial_state(self, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Return an empty state, because clips are processed independently."""
        return {}

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Process one clip.

        Args:
            frames: Normalised BGR (RGB for EfficientNet) `[T, 3, H, W]`, H and W multiples of 32, padded with zeros at
                the right and bottom.

        Returns:
            embeddings `[T, E, h, w]`, bandwidths `[T, B, h, w]`, seediness `[T, h, w]`; with a semantic head also
            class_logits `[T, C, h, w]`, background first, and foreground_logits `[T, h, w]`. The size is a quarter of
            that of the input; with `resize_embeddings`, it is that of the input.
        """
        config = self.model.config
        heads = self.model.infer(frames[None])
        maps = [heads.embeddings.values, bandwidths(heads.embeddings.variances), heads.seediness]
        if heads.semantic is not None:
            maps.append(heads.semantic)
        maps = [each[0].transpose(0, 1) for each in maps]
        if config.resize_embeddings:
            maps = [F.interpolate(each, scale_factor=4.0, mode="bilinear", align_corners=False) for each in maps]
        embedding, bandwidth, seediness = maps[:3]
        outputs = (embedding, bandwidth, seediness[:, 0])
        if heads.semantic is None:
            return outputs
        semantic = maps[3]
        return (*outputs, semantic[:, : config.num_classes + 1], foreground_logits(semantic))
