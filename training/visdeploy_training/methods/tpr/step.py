"""Exported form of TPR: a pure function of one frame and the pyramid of the previous frame."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy.manifest.sizes import evaluate
from visdeploy_training.methods.tpr.blending import blend, crop
from visdeploy_training.methods.tpr.detect import attention_at, candidates, embeddings_at, suppress
from visdeploy_training.methods.tpr.gates import Gates
from visdeploy_training.methods.tpr.inference import pyramid_specs
from visdeploy_training.methods.tpr.network import TPR
from visdeploy_training.model import VISModel

NOT_ALIGNED = -1.0
"""Share of open gates in the first frame, which is not aligned."""


class OnlineStep(nn.Module):
    """Module that computes detections and the aligned pyramid from one frame and the previous pyramid; batch size 1.

    Args:
        model: A TPR network of the video stage; its weights are shared, not copied.

    Attributes:
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs, with the next state at the end.

    Raises:
        ConfigError: The network is one of the image stage.
    """

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        if not isinstance(model, TPR):
            raise TypeError(f"OnlineStep takes a TPR network, not {type(model).__name__}")
        if model.temporal_align is None or model.track_head is None:
            raise ConfigError(
                "tpr: a network of the image stage has no tracks",
                seen=f"variant {model.info.variant!r}" if hasattr(model, "info") else "stage 'image'",
                expected="a network of the video stage",
                hint="Start a training of a video variant from it, with init in the recipe.",
            )
        self.model = model
        self.align, self.track = model.temporal_align, model.track_head
        state = pyramid_specs(model.config)
        self.input_names = ["frame", *(s.input for s in state)]
        self.output_names = [
            "scores", "labels", "boxes", "masks", "embeddings", "cells", "open_gates", *(s.output for s in state)
        ]  # fmt: skip

    def initial_state(self, height: int, width: int) -> dict[str, Tensor]:
        """Create the state before the first frame, by input name.

        Args:
            height: Rows of the frames.
            width: Columns of the frames.
        """
        sizes = {"height": height, "width": width}
        return {
            s.input: torch.full([evaluate(n, sizes) for n in s.shape], s.initial, dtype=getattr(torch, s.dtype))
            for s in pyramid_specs(self.model.config)
        }

    def forward(
        self, frame: Tensor, mem_p3: Tensor, mem_p4: Tensor, mem_p5: Tensor, mem_p6: Tensor, mem_p7: Tensor,
        started: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Process the next frame.

        Args:
            frame: Normalised BGR `[1, 3, H, W]`; H and W are multiples of 32, padded with zeros.
            mem_p3: Aligned level of the previous frame, `[1, C, H / 8, W / 8]`; the same for the other levels.
            mem_p4: Stride 16.
            mem_p5: Stride 32.
            mem_p6: Stride 64, rounded up.
            mem_p7: Stride 128, rounded up.
            started: 0 before the first frame, then 1; `[1]` int64.

        Returns:
            Tensors in the order of `output_names`, with n detections in descending order of score: scores `[n]`,
            labels `[n]` int64, boxes `[n, 4]` (left, top, right, bottom in pixels of the input, not clipped), masks
            `[n, s, s]` (probabilities within the boxes), embeddings `[n, track_dim]`, cells `[n]` int64, open_gates
            (share of each gated block, -1 for the first frame), then the next state.
        """
        model, config, gates = self.model, self.model.config, Gates()
        levels = model.backbone(frame)
        aligned = self.align((mem_p3, mem_p4, mem_p5, mem_p6, mem_p7), levels, gates)
        later = (started > 0)[:, None, None, None]
        pyramid = [torch.where(later, new, old) for new, old in zip(aligned, levels, strict=True)]
        opened = torch.cat(gates.opened)
        opened = torch.where(started > 0, opened, torch.full_like(opened, NOT_ALIGNED))
        predictions = model.proposal_generator.fcos_head(pyramid)
        found = suppress(candidates(predictions, config), config)
        top = model.top_layer
        attention = attention_at(predictions.towers, found, top.weight, cast(Tensor, top.bias))
        bases = crop(model.basis_module(pyramid), found.boxes, torch.zeros_like(found.labels), config.mask_size)
        logits = blend(bases, attention, config)
        near = embeddings_at(self.track.features(pyramid)[0], found.boxes)
        return (
            found.scores,
            found.labels,
            found.boxes,
            logits.sigmoid(),
            self.track.project(near),
            found.cells,
            opened,
            *pyramid,
            torch.ones_like(started),
        )
