"""VIShv network: embeddings of the pixels of a clip, semantic classes, and a flow of the appearance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visdeploy.errors import ConfigError
from visdeploy_training.methods.vishv.backbone import Backbone
from visdeploy_training.methods.vishv.config import SIZE_MULTIPLE, SMALLEST, VIShvConfig
from visdeploy_training.methods.vishv.decoder import OutputHead
from visdeploy_training.methods.vishv.embedding import AppearanceDecoder, EmbeddingHead, Embeddings, flow_input
from visdeploy_training.methods.vishv.flow import FlowResult, Glow
from visdeploy_training.model import VISModel


class Heads(NamedTuple):
    """Output of the heads for B clips of T frames, at a quarter of the input size.

    Attributes:
        embeddings: Embedding and raw variances.
        seediness: Probability that a pixel represents its object, `[B, 1, T, h, w]`.
        semantic: Logits of background, classes and foreground, `[B, C, T, h, w]`; None without a semantic head.
    """

    embeddings: Embeddings
    seediness: Tensor
    semantic: Tensor | None


class VIShvOutput(NamedTuple):
    """Training output for B clips of T frames.

    Attributes:
        size: Clips, frames, rows and columns of the input.
        heads: Output of the heads; None in iterations for the flow alone.
        flow_input: Input of the flow, `[B * T, F, H / 16, W / 16]`, sorted by clip; None without a flow.
        flow: Function from a part of the input of the flow, and from the union of the masks of its frames if the flow
            is conditional, to the likelihood; None without a flow.
    """

    size: tuple[int, int, int, int]
    heads: Heads | None
    flow_input: Tensor | None
    flow: Callable[[Tensor, Tensor | None], FlowResult] | None


class VIShv(VISModel):
    """Network with the names of the official checkpoints, except in the backbone.

    Args:
        config: Layers and dimensions.

    Attributes:
        joint: Whether the heads are computed in training; False in the first iterations, see `start_iteration`.
    """

    config: VIShvConfig

    def __init__(self, config: VIShvConfig) -> None:
        super().__init__()
        self.config = config
        self.joint = True
        self.backbone = Backbone(config)
        self.embedding_head = EmbeddingHead(config)
        self.offset_head = make_flow(config) if config.flow else None
        self.offset_decoder = AppearanceDecoder(config) if config.appearance else None
        self.seediness_head = OutputHead(config.decoder_channels, 1, config) if config.separate_seediness else None
        self.semseg_head: OutputHead | None = None
        if config.semantic:
            self.semseg_head = OutputHead(config.semantic_channels, config.semantic_dims, config)

    def start_iteration(self, iteration: int) -> None:
        """Compute only the flow loss in the first `flow_iterations` iterations, see `VISModel.start_iteration`.

        Parameters that this phase does not use have no gradient. In a training with several processes, the option
        `strategy: ddp_find_unused_parameters_true` is needed.
        """
        self.joint = self.offset_head is None or iteration >= self.config.flow_iterations

    def forward(self, clips: Tensor) -> VIShvOutput:
        """Compute the training output.

        Args:
            clips: Normalised BGR (RGB for EfficientNet) `[B, T, 3, H, W]`, H and W multiples of 32, at least 96.

        Raises:
            ConfigError: The size of the clips is wrong.
        """
        batch, frames, _, height, width = clips.shape
        levels = self.levels(clips)
        appearance = None if self.offset_decoder is None else self.offset_decoder(levels[-1])
        quantised = None
        if self.offset_head is not None and appearance is not None:
            through = self.config.flow_input_gradient == "straight_through"
            value = flow_input(appearance, self.config.flow_bits, straight_through=through)
            quantised = value.transpose(1, 2).flatten(0, 1)
        heads = self.heads(levels, appearance) if self.joint else None
        return VIShvOutput((batch, frames, height, width), heads, quantised, self.offset_head)

    def levels(self, clips: Tensor) -> list[Tensor]:
        """Compute the pyramid of clips `[B, T, 3, H, W]`: `[B, C, T, H / s, W / s]` for the strides 4, 8, 16 and 32.

        Raises:
            ConfigError: The size of the clips is wrong.
        """
        height, width = clips.shape[-2:]
        if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE or min(height, width) < SMALLEST:
            raise ConfigError(
                "vishv: wrong size of the network input",
                seen=f"{height}x{width}",
                expected=f"multiples of {SIZE_MULTIPLE}, at least {SMALLEST}",
                hint="Scale the frames up, or pad them further.",
            )
        maps = self.backbone(clips.flatten(0, 1))
        return [each.unflatten(0, clips.shape[:2]).transpose(1, 2) for each in maps]

    def heads(self, levels: Sequence[Tensor], appearance: Tensor | None) -> Heads:
        """Compute all heads from the pyramid of `levels` and the appearance embedding, if there is one."""
        embeddings: Embeddings = self.embedding_head(levels, appearance)
        seediness = embeddings.seediness
        if self.seediness_head is not None:
            seediness = self.seediness_head(levels).sigmoid()
        if seediness is None:
            raise TypeError("the network has no seediness")
        return Heads(embeddings, seediness, None if self.semseg_head is None else self.semseg_head(levels))

    def infer(self, clips: Tensor) -> Heads:
        """Compute the heads of clips `[B, T, 3, H, W]` without the flow."""
        levels = self.levels(clips)
        return self.heads(levels, None if self.offset_decoder is None else self.offset_decoder(levels[-1]))


def make_flow(config: VIShvConfig) -> Glow:
    """Create the flow of a configuration."""
    return Glow(
        config.free_dims,
        steps=config.flow_steps,
        levels=config.flow_levels,
        width=config.flow_width,
        affine=config.flow_affine,
        lu=config.flow_lu,
        conditional=config.flow_conditional,
    )


def foreground_logits(semantic: Tensor) -> Tensor:
    """Return the foreground logits `[..., h, w]` of semantic logits `[..., C, h, w]`.

    With two channels, background and one class, the sigmoid of the result is the softmax of the class.
    """
    last = torch.select(semantic, -3, -1)
    return last - torch.select(semantic, -3, 0) if semantic.shape[-3] == 2 else last
