"""The DefVIS network: one class for both layouts (spec section 3)."""

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
    """What the network says about B clips of T frames; a slot is one object through all frames of its clip.

    Attributes:
        logits: Of every decoder layer, the last one counts: `[layers, B, S, T, num_classes + 2]`; column 0 is an
            unused id, column k class k - 1, the last one no object.
        boxes: `[layers, B, S, T, 4]`, centre and size (x, y, w, h) as shares of the input's size.
        masks: Logits `[B, S, T, H / 4, W / 4]`.
    """

    logits: Tensor
    boxes: Tensor
    masks: Tensor


class BoxHead(nn.Module):
    """Three linear layers with ReLU between; names as in the official checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, cout) for cout in (dim, dim, 4))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C]` to `[..., 4]` in 0..1."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out.sigmoid()


class DefVIS(VISModel):
    """Deformable VisTR: spatio-temporal deformable attention for video instance segmentation.

    State dict names are the official ones without the leading `vistr.`, the backbone's are the project's.

    Args:
        config: Sizes and weights.
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
        """Refuse clips of another length than the weights', and sizes that the backbone cannot take.

        Raises:
            ConfigError: Length or size is wrong.
        """
        frames, multiple = self.config.num_frames, self.config.size_multiple
        if clips.shape[1] != frames:
            raise ConfigError(
                "defvis: wrong length of a clip",
                seen=f"{clips.shape[1]} frames",
                expected=f"{frames}, what the network was made for",
                hint="Set clip_length in the recipe, or num_frames of a network that is trained anew.",
            )
        height, width = clips.shape[-2:]
        if height % multiple or width % multiple:
            raise ConfigError(
                "defvis: wrong size of the network input", seen=f"{height}x{width}", expected=f"multiples of {multiple}"
            )

    def forward(self, clips: Tensor, padding: Tensor | None = None) -> DefVISOutput:
        """Classes, boxes and masks of all slots in all frames, for training and inference alike.

        Args:
            clips: Normalised RGB, float, `[B, T, 3, H, W]`; T is `config.num_frames`.
            padding: `[B, T, H, W]` bool, True where there is no picture; None where there is no padding.

        Raises:
            ConfigError: Length or size of the clips is wrong.
        """
        self.check_clip(clips)
        lead = clips.shape[:2]
        maps = self.backbone(clips.flatten(0, 1))
        # under autocast the transformer's sums and sampling positions stay in the precision of the weights
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
        """Decoder outputs `[layers, B, groups, queries, C]` as slots `[layers, B, S, T, C]`.

        With groups, upstream flattens (query, group) and then reads (slot, frame), so that a slot is not a group;
        trained weights are in that order (section 3.6). Without, queries are (frame, slot).
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
        """Mask logits `[B, S, T, H / 4, W / 4]` from slots `[B, S, T, C]` and frame memory `[B, T, h * w, C]`."""
        attention = self.bbox_attention(slots, memory, padding).unflatten(-1, size)
        pictures = memory.transpose(2, 3).unflatten(-1, size)
        features = self.mask_head(pictures, attention, maps)
        volumes = features.flatten(0, 1).transpose(1, 2)
        logits: Tensor = self.insmask_head(volumes).squeeze(1).unflatten(0, slots.shape[:2])
        return logits
