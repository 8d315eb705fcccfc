"""TPR network: BlendMask with temporal alignment and track head (Li et al., TPAMI 2023), one class for all variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.methods.tpr.alignment import TemporalAlign
from visdeploy_training.methods.tpr.backbone import Pyramid
from visdeploy_training.methods.tpr.config import SIZE_MULTIPLE, TPRConfig
from visdeploy_training.methods.tpr.gates import Gates
from visdeploy_training.methods.tpr.head import BasisModule, FCOSHead, Predictions, TrackHead
from visdeploy_training.methods.tpr.output import TPROutput
from visdeploy_training.model import VISModel


class ProposalGenerator(nn.Module):
    """Detection head under its published name."""

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        self.fcos_head = FCOSHead(config)


class Found(NamedTuple):
    """Predictions of all heads for B frames.

    Attributes:
        predictions: Predictions of the detection head.
        attention: Attention maps of every location, `[B, bases * side * side, H_l, W_l]` for each level.
        bases: `[B, num_bases, H / 4, W / 4]`.
    """

    predictions: Predictions
    attention: list[Tensor]
    bases: Tensor


class TPR(VISModel):
    """TPR network; in the image stage BlendMask without alignment and track head.

    State dict names are the official ones, except for the backbone.

    Args:
        config: Configuration with sizes and thresholds.
    """

    config: TPRConfig

    def __init__(self, config: TPRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Pyramid(config)
        self.proposal_generator = ProposalGenerator(config)
        self.top_layer = nn.Conv2d(config.channels, config.attention_channels, 3, padding=1)
        nn.init.normal_(self.top_layer.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.top_layer.bias))
        self.basis_module = BasisModule(config)
        video = config.stage == "video"
        self.track_head = TrackHead(config) if video else None
        self.temporal_align = TemporalAlign(config) if video else None

    def check_size(self, height: int, width: int) -> None:
        """Check that the sides of frames are multiples of 32.

        Raises:
            ConfigError: A side is not a multiple.
        """
        multiple = SIZE_MULTIPLE
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise ConfigError(
                "tpr: wrong size of the network input", seen=f"{height}x{width}", expected=f"multiples of {multiple}"
            )

    def heads(self, levels: Sequence[Tensor]) -> Found:
        """Apply detection head, top layer and basis module to a pyramid p3 to p7."""
        predictions = self.proposal_generator.fcos_head(levels)
        return Found(predictions, [self.top_layer(tower) for tower in predictions.towers], self.basis_module(levels))

    def forward(self, clips: Tensor) -> TPROutput:
        """Compute the training output.

        Args:
            clips: Normalised BGR, float, `[B, T, 3, H, W]`, H and W multiples of 32. Video stage: T = 2, the frame and
                its reference frame, whose pyramid is not aligned. Image stage: B * T independent images.

        Raises:
            ConfigError: T is not 2 (video stage), or a side is not a multiple of 32.
        """
        self.check_size(clips.shape[-2], clips.shape[-1])
        if self.track_head is None or self.temporal_align is None:
            return self._image_output(clips.flatten(0, 1))
        if clips.shape[1] != 2:
            raise ConfigError(
                "tpr: wrong length of a training clip",
                seen=f"{clips.shape[1]} frames",
                expected="2, the frame and its reference frame",
            )
        both = self.backbone(clips.transpose(0, 1).flatten(0, 1))
        query, reference = zip(*(level.chunk(2) for level in both), strict=True)
        gates = Gates()
        aligned = self.temporal_align(reference, query, gates)
        soft, used = gates.shares() if gates.full else (clips.new_zeros(len(clips)),) * 2
        maps = self.track_head(aligned), self.track_head(reference)
        return self._output(self.heads(aligned), maps, soft, used)

    def _image_output(self, images: Tensor) -> TPROutput:
        levels = self.backbone(images)
        nothing = images.new_zeros(len(images), 0, images.shape[-2] // 8, images.shape[-1] // 8)
        cost = images.new_zeros(len(images))
        semantic = None if self.basis_module.semantic is None else self.basis_module.semantic(levels[0])
        return self._output(self.heads(levels), (nothing, nothing), cost, cost)._replace(semantic=semantic)

    @staticmethod
    def _output(found: Found, maps: tuple[Tensor, Tensor], soft: Tensor, used: Tensor) -> TPROutput:
        predictions = found.predictions
        return TPROutput(
            predictions.class_logits,
            predictions.distances,
            predictions.centreness,
            found.attention,
            found.bases,
            *maps,
            soft,
            used.detach(),
        )
