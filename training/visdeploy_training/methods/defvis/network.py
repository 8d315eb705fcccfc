"""DefVIS network (Yarram et al., ICASSP 2022), one class for both layouts."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from visdeploy.errors import ConfigError
from visdeploy_training.backbones.efficientnet_lite import EfficientNetLite0
from visdeploy_training.backbones.resnet import ResNet
from visdeploy_training.methods.defvis.config import DefVISConfig
from visdeploy_training.methods.defvis.geometry import make_levels, resize_padding
from visdeploy_training.methods.defvis.mask_head import AttentionMap, MaskHead, sequence_head
from visdeploy_training.methods.defvis.transformer import Transformer
from visdeploy_training.model import VISModel

STAGES = ("res2", "res3", "res4", "res5")


class DefVISOutput(NamedTuple):
    """Output of the network for B clips of T frames; a slot is one object in all frames of its clip.

    Attributes:
        logits: Class logits of every decoder layer `[layers, B, S, T, num_classes + 2]`, the last layer being the
            result; column 0 is an unused id, column k is class k - 1, the last column is no object.
        boxes: `[layers, B, S, T, 4]`, centre and size (x, y, w, h) as fractions of the input size.
        masks: Mask logits `[B, S, T, H / 4, W / 4]`.
    """

    logits: Tensor
    boxes: Tensor
    masks: Tensor


class BoxHead(nn.Module):
    """Three linear layers with ReLU in between, with the names of the official checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, cout) for cout in (dim, dim, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., C]` to boxes `[..., 4]` in 0..1."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out.sigmoid()


class DefVIS(VISModel):
    """DefVIS network.

    State dict names are the official ones without the leading `vistr.`, except those of the backbone.

    Args:
        config: Configuration with sizes and weights.
    """

    config: DefVISConfig

    def __init__(self, config: DefVISConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: ResNet | EfficientNetLite0
        if config.backbone == "efficientnet_lite0":
            self.backbone = EfficientNetLite0(freeze_at=config.freeze_at, train_norm=config.train_norm)
        else:
            depth = int(config.backbone.removeprefix("resnet"))
            self.backbone = ResNet(depth, out_features=STAGES, freeze_at=config.freeze_at, dilated=config.dilated)
        channels, dim = self.backbone.channels, config.hidden_dim
        self.input_proj = nn.Conv2d(channels["res5"], dim, 1)
        self.transformer = Transformer(config)
        self.query_embed = nn.Embedding(config.num_frames * config.queries_per_frame, dim)
        self.class_embed = nn.Linear(dim, config.num_logits)
        self.bbox_embed = BoxHead(dim)
        self.bbox_attention = AttentionMap(config)
        self.mask_head = MaskHead(config, channels)
        self.insmask_head = sequence_head(config)

    def check_clip(self, clips: Tensor) -> None:
        """Check that clips have the length for which the weights were trained, and a size that the backbone accepts.

        Raises:
            ConfigError: The length or the size is wrong.
        """
        frames, multiple = self.config.num_frames, self.config.size_multiple
        if clips.shape[1] != frames:
            raise ConfigError(
                "defvis: wrong length of a clip",
                seen=f"{clips.shape[1]} frames",
                expected=f"{frames}, the num_frames of the network",
                hint="Set clip_length in the recipe, or num_frames of a network that is trained from the start.",
            )
        height, width = clips.shape[-2:]
        if height % multiple or width % multiple:
            raise ConfigError(
                "defvis: wrong size of the network input", seen=f"{height}x{width}", expected=f"multiples of {multiple}"
            )

    def forward(self, clips: Tensor, padding: Tensor | None = None) -> DefVISOutput:
        """Compute classes, boxes and masks of all slots in all frames, in training and in inference.

        Args:
            clips: Normalised RGB, float, `[B, T, 3, H, W]`; T is `config.num_frames`.
            padding: `[B, T, H, W]` bool, True for padding; None if there is no padding.

        Raises:
            ConfigError: The length or the size of the clips is wrong.
        """
        self.check_clip(clips)
        lead = clips.shape[:2]
        maps = self.backbone(clips.flatten(0, 1))
        # under autocast, residual sums and sampling positions of the transformer keep the precision of the weights
        frames = self.input_proj(maps["res5"]).to(self.query_embed.weight.dtype).unflatten(0, lead)
        height, width = frames.shape[-2:]
        if padding is not None:
            padding = resize_padding(padding.flatten(0, 1), height, width).unflatten(0, lead)
        config = self.config
        tokens = (config.instance_groups, config.tokens_per_group) if config.instance_groups else None
        levels = make_levels(frames, tokens, padding)
        memory, decoded = self.transformer(frames, levels, self.query_embed.weight)
        slots = self.arrange(decoded)
        masks = self.masks(slots[-1], memory, maps, (height, width), None if padding is None else padding.flatten(2))
        return DefVISOutput(self.class_embed(slots), self.bbox_embed(slots), masks)

    def arrange(self, decoded: Tensor) -> Tensor:
        """Rearrange decoder outputs `[layers, B, groups, queries, C]` to slots `[layers, B, S, T, C]`.

        With groups, the published implementation flattens (query, group) and then reads the result as (slot, frame).
        A slot is therefore not a group, and trained weights depend on this order. Without groups, queries are
        ordered by (frame, slot).
        """
        frames = self.config.num_frames
        if self.config.instance_groups:
            flat = decoded.transpose(2, 3).flatten(2, 3)
            slots: Tensor = flat.unflatten(2, (-1, frames))
        else:
            slots = decoded.flatten(2, 3).unflatten(2, (frames, -1)).transpose(2, 3)
        return slots

    def masks(
        self,
        slots: Tensor,
        memory: Tensor,
        maps: dict[str, Tensor],
        size: tuple[int, int],
        padding: Tensor | None,
    ) -> Tensor:
        """Return mask logits `[B, S, T, H / 4, W / 4]` of slots `[B, S, T, C]` and frame memory `[B, T, h * w, C]`."""
        attention = self.bbox_attention(slots, memory, padding).unflatten(-1, size)
        pictures = memory.transpose(2, 3).unflatten(-1, size)
        features = self.mask_head(pictures, attention, maps)
        volumes = features.flatten(0, 1).transpose(1, 2)
        logits: Tensor = self.insmask_head(volumes).squeeze(1).unflatten(0, slots.shape[:2])
        return logits
