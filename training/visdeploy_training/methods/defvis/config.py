"""Configuration of DefVIS networks, and the named variants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from visdeploy_training.config import CALLED, MAX_FRAMES, MAX_LAYERS, RUN_TIME, WHY_FIXED, MethodConfig

_FRAMES = {CALLED: "window", WHY_FIXED: "DefVIS's window is the number of frames that its weights were trained for."}


@dataclass(frozen=True)
class DefVISConfig(MethodConfig):
    """Configuration of a DefVIS network: sizes, thresholds, loss weights.

    There are two layouts. With `instance_groups`, learned tokens are added to the input of the encoder, and the decoder
    runs once per group, as in the published implementation. With 0 groups, there are only queries, `queries_per_frame`
    of them in each frame, as in VisTR (Wang et al., CVPR 2021).

    Attributes:
        num_classes: Number of object classes; the classifier has two rows more, id 0 (unused) and no object (last).
        backbone: Feature extractor.
        freeze_at: Number of leading backbone stages that are frozen (the stem counts as one).
        train_norm: Train scale and shift of the backbone's frozen batch norms (EfficientNet only).
        dilated: The transformer works at stride 16 instead of 32 (ResNet only, "DC5"): four times as many tokens, the
            same weights.
        num_frames: Frames of a clip, which determine the shapes of the encoder's weights.
        instance_groups: Number of groups of instance tokens; 0 for none.
        tokens_per_group: Instance tokens per group.
        queries_per_frame: Decoder queries per frame (and group).
        hidden_dim: Width of the transformer.
        num_heads: Attention heads.
        num_points: Sampling points per head and level.
        encoder_layers: Layers of the encoder.
        decoder_layers: Layers of the decoder.
        feedforward_dim: Hidden width of the feed-forward networks.
        dropout: Dropout rate of the transformer.
        recompute: Use activation checkpointing in training: recompute the transformer's layers in the backward pass.
            This needs much less memory, is slower, and gives the same results.
        mask_groups: Groups of the group norms in the mask head.
        sequence_dim: Channels of the sequence head.
        sequence_groups: Groups of the group norms in the sequence head.
        mask_prior: Initial foreground probability of a pixel; 0 keeps the random initial bias, as published.
        map_gain: Initial factor on the first weights of the mask head that apply to attention maps. The maps sum to one
            over all heads and pixels and are therefore much smaller than the other inputs; 1 as published.
        height: Rows of a training clip, and the shorter edge at inference.
        width: Columns of a training clip.
        longest_edge: Maximum longer edge at inference; the published implementation has no limit.
        size_multiple: Height and width of any input must be multiples of this.
        pixel_mean: RGB, 0..255.
        pixel_std: RGB, 0..255.
        clip_overlap: Number of frames that consecutive clips of a longer video share, less than `num_frames`; the
            published implementation does not process longer videos.
        frame_score_threshold: Minimum class score of a frame with a mask.
        class_weight: Weight of the classification in matching cost and loss.
        box_weight: Weight of the L1 distance of boxes in matching cost and loss.
        iou_weight: Weight of the IoU in the matching cost and of the generalised IoU loss.
        mask_weight: Weight of the focal loss of masks.
        dice_weight: Weight of the dice loss of masks.
        no_object_weight: Weight of the no-object class in the classification loss.
    """

    method: ClassVar[str] = "defvis"

    num_classes: int = 40
    backbone: Literal["resnet50", "resnet101", "efficientnet_lite0"] = "resnet50"
    freeze_at: int = 2
    train_norm: bool = False
    dilated: bool = False
    num_frames: int = field(default=36, metadata=_FRAMES)
    instance_groups: int = 8
    tokens_per_group: int = 20
    queries_per_frame: int = 1
    hidden_dim: int = 384
    num_heads: int = 8
    num_points: int = 6
    encoder_layers: int = 6
    decoder_layers: int = 6
    feedforward_dim: int = 2048
    dropout: float = 0.1
    recompute: bool = False
    mask_groups: int = 8
    sequence_dim: int = 12
    sequence_groups: int = 4
    mask_prior: float = 0.0
    map_gain: float = 1.0
    height: int = 300
    width: int = 540
    longest_edge: int = 1333
    size_multiple: int = 1
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    clip_overlap: int = field(default=12, metadata=RUN_TIME | {CALLED: "overlap"})
    frame_score_threshold: float = field(default=0.001, metadata=RUN_TIME)
    class_weight: float = 1.0
    box_weight: float = 5.0
    iou_weight: float = 2.0
    mask_weight: float = 1.0
    dice_weight: float = 1.0
    no_object_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("dilated", not self.dilated or self.backbone.startswith("resnet"), "false without a ResNet")
        self.check_input()
        self.check_most(MAX_FRAMES, "num_frames")
        self.check_most(MAX_LAYERS, "encoder_layers", "decoder_layers")
        self.check_least(
            1, "num_classes", "num_frames", "queries_per_frame", "num_heads", "num_points", "encoder_layers",
            "decoder_layers", "feedforward_dim", "longest_edge", "size_multiple", "mask_groups", "sequence_dim",
            "sequence_groups",
        )  # fmt: skip
        self.check_least(0, "freeze_at", "instance_groups", "clip_overlap")
        self.check("tokens_per_group", self.tokens_per_group >= min(1, self.instance_groups), "at least 1 with groups")
        # positions are pairs of sine and cosine on two or three axes, and the mask head halves the width four times
        self.check_multiple(48, "hidden_dim")
        self.check("num_heads", self.hidden_dim % self.num_heads == 0, f"a divisor of {self.hidden_dim}")
        narrow = self.mask_widths[-1]
        self.check("mask_groups", narrow % self.mask_groups == 0, f"a divisor of {narrow}")
        self.check("mask_groups", self.num_heads % self.mask_groups == 0, f"a divisor of {self.num_heads} heads")
        whole = self.sequence_dim % self.sequence_groups == 0
        self.check("sequence_groups", whole, f"a divisor of {self.sequence_dim}")
        self.check_share("mask_prior", "dropout")
        self.check_threshold("frame_score_threshold")
        self.check_positive("map_gain")
        self.check_multiple(self.size_multiple, "height", "width")

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """Return the input size, see `MethodConfig.input_size`; the size is the shorter edge, then the longest edge."""
        changed = super().input_size(height, width)
        if self.size_multiple == 1 and width is not None:
            changed["longest_edge"] = width
        return changed

    def check_given(self, given: Collection[str]) -> None:
        """See `MethodConfig.check_given`."""
        self.check_overlap(given, self.num_frames)

    @property
    def slots(self) -> int:
        """Maximum number of objects in a clip."""
        return self.queries_per_frame * max(1, self.instance_groups)

    @property
    def num_levels(self) -> int:
        """Number of levels of the encoder's attention: one per frame, and one for the grid of instance tokens."""
        return self.num_frames + min(1, self.instance_groups)

    @property
    def num_logits(self) -> int:
        """Number of outputs of the classifier: id 0 (unused), the classes, no object."""
        return self.num_classes + 2

    @property
    def mask_widths(self) -> tuple[int, ...]:
        """Channels of the mask head from stride 32 to its output."""
        return tuple(self.hidden_dim // 2**i for i in range(1, 5))


INST_R50 = DefVISConfig()
ENC_R50 = DefVISConfig(instance_groups=0, tokens_per_group=0, queries_per_frame=10)
PUBLISHED = {
    "inst_r50": INST_R50,
    "inst_r101": replace(INST_R50, backbone="resnet101"),
    "enc_r50": ENC_R50,
    "enc_r101": replace(ENC_R50, backbone="resnet101"),
}
VARIANTS: dict[str, DefVISConfig] = {
    **PUBLISHED,
    **{f"{name}_dc5": replace(config, dilated=True) for name, config in PUBLISHED.items()},
    "tiny": DefVISConfig(
        backbone="efficientnet_lite0",
        freeze_at=0,
        train_norm=True,
        num_frames=12,
        clip_overlap=4,
        instance_groups=0,
        tokens_per_group=0,
        queries_per_frame=4,
        hidden_dim=192,
        mask_prior=0.08,
        map_gain=100.0,
        num_points=4,
        encoder_layers=3,
        decoder_layers=3,
        feedforward_dim=384,
        dropout=0.0,
        mask_groups=4,
        height=96,
        width=160,
        longest_edge=512,
        size_multiple=32,
    ),
}
