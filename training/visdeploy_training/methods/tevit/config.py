"""Configuration of TeViT networks, and the named variants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from visdeploy_training.config import CALLED, MAX_FRAMES, MAX_LAYERS, RUN_TIME, MethodConfig

SIZE_MULTIPLE = 32
"""Divisor of the height and width of every input."""
BOX_SIZE, MASK_SIZE = 7, 14
"""Rows and columns of the RoI features of the box and mask heads; a mask has twice as many as its features."""
FINEST = 56.0
"""Square root of the area, in pixels, of the smallest boxes assigned by size to the finest level."""


@dataclass(frozen=True)
class TeViTConfig(MethodConfig):
    """Configuration of a TeViT network: sizes, loss weights, parameters of inference.

    Attributes:
        num_classes: Number of object classes, no background.
        backbone: Feature extractor. PVTs exchange information between frames by messengers; other backbones process
            each frame separately.
        freeze_at: Number of leading backbone stages that are frozen (ResNet and EfficientNet; the stem counts as one).
        drop_path: Stochastic depth of the backbone's last block (PVT and Swin).
        num_queries: Number of learned proposals.
        num_stages: Number of stages of the cascade.
        hidden_dim: Width of pyramid and queries.
        num_heads: Attention heads of a stage.
        feedforward_dim: Hidden width of the feed-forward network of a stage.
        dynamic_dim: Hidden width of the dynamic convolutions.
        mask_convs: Convolutions of a mask head.
        max_results: Number of pairs of a query and a class in the result of a clip.
        height: Rows of a training clip.
        width: Columns of a training clip.
        shortest_edge: Shorter edge at inference, with the aspect ratio kept; 0 resizes to `height` and `width`.
        longest_edge: Maximum longer edge at inference.
        pixel_mean: RGB, 0..255.
        pixel_std: RGB, 0..255.
        window: Maximum number of frames of a clip at inference; the published implementation uses whole videos, of at
            most 36 frames.
        clip_overlap: Number of frames that consecutive clips of a longer video share, less than `window`.
        class_weight: Weight of the classification in matching cost and loss.
        box_weight: Weight of the L1 distance of boxes in matching cost and loss.
        iou_weight: Weight of the generalised IoU in matching cost and loss.
        mask_weight: Weight of the dice loss of masks.
    """

    method: ClassVar[str] = "tevit"

    num_classes: int = 40
    backbone: Literal["pvt_v2_b1", "pvt_small", "resnet50", "swin_l", "efficientnet_lite0"] = "pvt_v2_b1"
    freeze_at: int = 2
    drop_path: float = 0.1
    num_queries: int = 100
    num_stages: int = 6
    hidden_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 2048
    dynamic_dim: int = 64
    mask_convs: int = 4
    max_results: int = field(default=10, metadata=RUN_TIME)
    height: int = 352
    width: int = 640
    shortest_edge: int = 360
    longest_edge: int = 640
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    window: int = field(default=36, metadata=RUN_TIME)
    clip_overlap: int = field(default=12, metadata=RUN_TIME | {CALLED: "overlap"})
    class_weight: float = 2.0
    box_weight: float = 5.0
    iou_weight: float = 2.0
    mask_weight: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_input()
        self.check_most(MAX_FRAMES, "window")
        self.check_most(MAX_LAYERS, "num_stages", "mask_convs")
        self.check_least(
            1, "num_classes", "num_queries", "num_stages", "hidden_dim", "num_heads", "feedforward_dim", "dynamic_dim",
            "max_results", "longest_edge", "window",
        )  # fmt: skip
        self.check("hidden_dim", self.hidden_dim % self.num_heads == 0, f"a multiple of {self.num_heads} heads")
        pairs = self.num_queries * self.num_classes
        self.check("max_results", self.max_results <= pairs, f"at most {pairs}, all pairs of query and class")
        self.check_least(0, "freeze_at", "mask_convs", "shortest_edge", "clip_overlap")
        self.check_share("drop_path")
        self.check_multiple(SIZE_MULTIPLE, "height", "width")

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """Return the input size, see `MethodConfig.input_size`; with `shortest_edge`, the shorter and longer edge."""
        if not self.shortest_edge:
            return super().input_size(height, width)
        return self.edges(height, width)

    def check_given(self, given: Collection[str]) -> None:
        """See `MethodConfig.check_given`."""
        self.check_overlap(given, self.window)


MSGSHIFT = TeViTConfig()
R50 = replace(MSGSHIFT, backbone="resnet50")
VARIANTS: dict[str, TeViTConfig] = {
    "msgshift": MSGSHIFT,
    "r50": R50,
    "swin_l": replace(
        MSGSHIFT,
        backbone="swin_l",
        drop_path=0.2,
        num_queries=300,
        height=480,
        width=864,
        shortest_edge=480,
        longest_edge=1333,
    ),
    "tiny": TeViTConfig(
        backbone="pvt_small",
        drop_path=0.0,
        num_queries=12,
        num_stages=2,
        hidden_dim=64,
        num_heads=4,
        feedforward_dim=128,
        dynamic_dim=16,
        mask_convs=2,
        max_results=4,
        height=96,
        width=160,
        shortest_edge=0,
        window=12,
        clip_overlap=4,
    ),
}
VARIANTS |= {"msgshift_mst": MSGSHIFT, "r50_mst": R50}
