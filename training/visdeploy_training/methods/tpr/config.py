"""Configuration of TPR networks (Temporal Pyramid Routing on BlendMask), and the named variants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from visdeploy_training.config import MAX_LAYERS, RUN_TIME, MethodConfig

SIZE_MULTIPLE = 32
MAX_MASK = 1024
"""Rows and columns of the network input are multiples of this; p6 and p7 have sizes that are rounded up."""


@dataclass(frozen=True)
class TPRConfig(MethodConfig):
    """Configuration of a TPR network: sizes, thresholds, loss weights.

    Attributes:
        num_classes: Number of object classes, no background.
        stage: `video`: with temporal alignment and track head. `image`: BlendMask alone, the network of the
            pre-training on images.
        backbone: Feature extractor.
        deformable_backbone: Modulated deformable convolutions in the last two stages of a ResNet.
        freeze_at: Number of leading backbone stages that are frozen. ResNet and EfficientNet: the stem counts as one.
            Swin: the patch embedding counts as one; a stage includes the downsampling to the next.
        drop_path: Drop probability of the last block of a Swin Transformer.
        channels: Channels of the feature pyramid, of the alignment and of the heads.
        num_groups: Groups of all group norms.
        cpr: Cross pyramid routing: deformable pyramid convolutions (`sepc`), or gated cells (`routing`).
        cpr_depths: Number of routing layers after the alignment of p3, p4, p5, p6 and p7.
        tower_depth: Convolutions of each tower of the detection head.
        deformable_tower: The last convolution of each tower is a modulated deformable convolution.
        class_prior: Initial foreground probability of the classifier.
        basis_channels: Channels of the basis module.
        num_bases: Number of basis maps.
        attention_size: Rows and columns of the attention map that a location predicts for each basis.
        mask_size: Rows and columns of a mask relative to its box.
        track_dim: Channels of the embedding map.
        semantic: Auxiliary semantic head on p3 (image stage).
        height: Rows of training images, for transforms to one size.
        width: Columns of training images, for transforms to one size.
        shortest_edge: Length to which the shorter edge of a frame is scaled.
        longest_edge: Largest length of the longer edge.
        pixel_mean: 0..255, in the order of the channels of the network input: BGR, or RGB for EfficientNet.
        pixel_std: The same for the standard deviation.
        score_threshold: Minimum product of class probability and centre-ness of a candidate, before the square root.
        nms_threshold: IoU above which a box suppresses boxes of its class with lower scores.
        nms_pre: Maximum number of candidates of a level.
        max_detections: Maximum number of detections of a frame, without ties for the last place.
        mask_threshold: Minimum probability of a pixel of a mask.
        score_weight: Weight of the logarithm of the score in the matching of detections with tracks.
        iou_weight: Weight of the IoU of the boxes.
        label_weight: Bonus for equal classes, and for a new track.
        rescale_first_frame_memory: Compare the boxes of the second frame with those of the first frame in the
            resolution of the source, as the published implementation does.
        max_objects: Maximum number of tracks that can be continued.
        focal_alpha: Weight of positives in the focal loss.
        focal_gamma: Exponent of the focal loss.
        centre_radius: Half side of the window around the centre of a box with positive locations, in strides.
        budget_weight: Weight of the cost of the gates.
        semantic_weight: Weight of the auxiliary semantic loss.
    """

    method: ClassVar[str] = "tpr"

    num_classes: int = 40
    stage: Literal["video", "image"] = "video"
    backbone: Literal["resnet50", "resnet101", "swin_t", "swin_b", "swin_l", "efficientnet_lite0"] = "resnet50"
    deformable_backbone: bool = False
    freeze_at: int = 2
    drop_path: float = 0.0
    channels: int = 256
    num_groups: int = 32
    cpr: Literal["sepc", "routing"] = "sepc"
    cpr_depths: tuple[int, int, int, int, int] = (3, 2, 2, 1, 1)
    tower_depth: int = 4
    deformable_tower: bool = False
    class_prior: float = 0.01
    basis_channels: int = 128
    num_bases: int = 4
    attention_size: int = 14
    mask_size: int = 56
    track_dim: int = 512
    semantic: bool = False
    height: int = 384
    width: int = 640
    shortest_edge: int = 360
    longest_edge: int = 640
    pixel_mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    score_threshold: float = field(default=0.05, metadata=RUN_TIME)
    nms_threshold: float = field(default=0.6, metadata=RUN_TIME)
    nms_pre: int = field(default=1000, metadata=RUN_TIME)
    max_detections: int = field(default=100, metadata=RUN_TIME)
    mask_threshold: float = field(default=0.5, metadata=RUN_TIME)
    score_weight: float = field(default=1.0, metadata=RUN_TIME)
    iou_weight: float = field(default=2.0, metadata=RUN_TIME)
    label_weight: float = field(default=10.0, metadata=RUN_TIME)
    rescale_first_frame_memory: bool = field(default=True, metadata=RUN_TIME)
    max_objects: int = field(default=1024, metadata=RUN_TIME)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    centre_radius: float = 1.5
    budget_weight: float = 0.1
    semantic_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_input()
        self.check_most(MAX_LAYERS, "tower_depth")
        self.check_most(MAX_MASK, "attention_size", "mask_size")
        self.check_least(
            1, "num_classes", "num_bases", "attention_size", "mask_size", "track_dim", "tower_depth", "nms_pre",
            "max_detections", "shortest_edge", "longest_edge", "max_objects", "num_groups", "basis_channels",
        )  # fmt: skip
        self.check_least(0, "freeze_at")
        self.check("cpr_depths", all(0 <= d <= MAX_LAYERS for d in self.cpr_depths), f"numbers from 0 to {MAX_LAYERS}")
        self.check_multiple(self.num_groups, "channels")
        self.check_multiple(SIZE_MULTIPLE, "height", "width")
        self.check_share("class_prior", "drop_path")
        self.check_positive("class_prior", "centre_radius")
        self.check_threshold("score_threshold", "nms_threshold", "mask_threshold", "focal_alpha")
        resnet = self.backbone.startswith("resnet")
        self.check("deformable_backbone", resnet or not self.deformable_backbone, "false, except for a ResNet")
        self.check("semantic", not self.semantic or self.stage == "image", "false in the video stage")

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """Return the shorter and the longer edge to change, see `MethodConfig.input_size`."""
        return self.edges(height, width)

    @property
    def channel_order(self) -> Literal["rgb", "bgr"]:
        """See `MethodConfig.channel_order`; published backbones take BGR."""
        return "rgb" if self.backbone == "efficientnet_lite0" else "bgr"

    @property
    def swin(self) -> bool:
        """Whether the backbone is a Swin Transformer, whose pyramid also has a level p2 that nothing uses."""
        return self.backbone.startswith("swin")

    @property
    def attention_channels(self) -> int:
        """Channels of the attention maps of a location; the channel is `(basis * side + row) * side + column`."""
        return self.num_bases * self.attention_size**2


_SEPC = TPRConfig()
_ROUTING = replace(
    _SEPC, backbone="swin_l", drop_path=0.2, cpr="routing", cpr_depths=(3, 2, 1, 1, 1), deformable_tower=True
)
_VIDEO: dict[str, TPRConfig] = {
    "r50_sepc": _SEPC,
    "r101_sepc": replace(_SEPC, backbone="resnet101"),
    "r101_dcn_sepc": replace(_SEPC, backbone="resnet101", deformable_backbone=True),
    "r50_routing": replace(_SEPC, cpr="routing", cpr_depths=(3, 2, 1, 1, 1)),
    "swin_t_routing": replace(_ROUTING, backbone="swin_t"),
    "swin_b_routing": replace(_ROUTING, backbone="swin_b"),
    "swin_l_routing": _ROUTING,
}
_TINY = TPRConfig(
    backbone="efficientnet_lite0",
    freeze_at=0,
    channels=64,
    num_groups=16,
    cpr="routing",
    cpr_depths=(1, 1, 1, 1, 1),
    tower_depth=2,
    basis_channels=48,
    mask_size=28,
    track_dim=64,
    height=192,
    width=352,
    shortest_edge=192,
    longest_edge=352,
    pixel_mean=(127.0, 127.0, 127.0),
    pixel_std=(128.0, 128.0, 128.0),
)


def _image(config: TPRConfig) -> TPRConfig:
    """Return the configuration of the pre-training on COCO. A Swin Transformer is not frozen there."""
    frozen = 0 if config.swin else config.freeze_at
    return replace(config, stage="image", num_classes=80, freeze_at=frozen, semantic=True)


VARIANTS: dict[str, TPRConfig] = {
    **_VIDEO,
    "tiny": _TINY,
    "tiny_sepc": replace(_TINY, cpr="sepc"),
    "r50_image": _image(_SEPC),
    "r101_image": _image(_VIDEO["r101_sepc"]),
    "r101_dcn_image": _image(_VIDEO["r101_dcn_sepc"]),
    "swin_t_image": _image(_VIDEO["swin_t_routing"]),
    "swin_b_image": _image(_VIDEO["swin_b_routing"]),
    "swin_l_image": _image(_VIDEO["swin_l_routing"]),
    "tiny_image": _image(_TINY),
}
