"""Configuration of VISOLO networks, and the named variants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from visdeploy_training.config import MOST, RUN_TIME, MethodConfig

MAX_SLOTS, MAX_GRID = 1024, 256


@dataclass(frozen=True)
class VISOLOConfig(MethodConfig):
    """Configuration of a VISOLO network: sizes, thresholds, loss weights.

    Attributes:
        num_classes: Number of object classes, no background.
        backbone: Feature extractor.
        freeze_at: Number of leading backbone stages that are frozen (the stem counts as one).
        train_norm: Train scale and shift of the backbone's frozen batch norms (EfficientNet only).
        neck_width: Channels of the fused map of strides 16 and 32; 0 uses the stride-16 map of the backbone.
        grid: Rows and columns of the grid.
        head_width: Channels of the category, kernel and tracking branches, and of the memory values.
        mask_width: Channels of the mask branch, its features and the dynamic kernels.
        track_dim: Channels of the tracking projections.
        num_groups: Groups of all group norms.
        class_prior: Initial foreground probability of the classifier; 0 sets its bias to 0, as published.
        tied_tracking: Initialise the two tracking projections with equal weights, unlike the published implementation.
        height: Rows of the network input.
        width: Columns of the network input.
        size_multiple: Height and width of any input must be multiples of this.
        pixel_mean: RGB, 0..255.
        pixel_std: RGB, 0..255.
        memory_slots: Frames that the online memory holds.
        score_threshold: Minimum class score of a candidate cell.
        mask_threshold: Probability above which a pixel is inside a mask.
        update_threshold: Minimum score after Matrix NMS.
        nms_kernel: Decay function of Matrix NMS.
        nms_sigma: Coefficient in the exponent of the Gaussian decay function.
        nms_pre: Maximum number of candidates before Matrix NMS.
        max_detections: Maximum number of detections per frame.
        overlap_threshold: Fraction of a mask covered by a mask with a higher score above which it is suppressed.
        tracking_threshold: Minimum affinity of an association.
        drop_frame_with_empty_masks: Two or more empty candidate masks remove all detections of the frame, as in the
            published implementation.
        mask_weight: Weight of the mask loss.
        focal_alpha: Weight of positives in the focal loss.
        focal_gamma: Exponent of the focal loss.
        dice_eps: Added to the denominator of the dice loss.
        sampling_eps: Size of the region with positive cells, as a fraction of the extent of an instance.
    """

    method: ClassVar[str] = "visolo"

    num_classes: int = 40
    backbone: Literal["resnet50", "efficientnet_lite0"] = "resnet50"
    freeze_at: int = 2
    train_norm: bool = False
    neck_width: int = 0
    grid: tuple[int, int] = (12, 21)
    head_width: int = 256
    mask_width: int = 256
    track_dim: int = 128
    num_groups: int = 32
    class_prior: float = 0.0
    tied_tracking: bool = False
    height: int = 352
    width: int = 624
    size_multiple: int = 16
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    memory_slots: int = field(default=16, metadata=RUN_TIME | {MOST: MAX_SLOTS})
    score_threshold: float = field(default=0.1, metadata=RUN_TIME)
    mask_threshold: float = field(default=0.5, metadata=RUN_TIME)
    update_threshold: float = field(default=0.05, metadata=RUN_TIME)
    nms_kernel: Literal["gaussian", "linear"] = field(default="gaussian", metadata=RUN_TIME)
    nms_sigma: float = field(default=2.0, metadata=RUN_TIME)
    nms_pre: int = field(default=500, metadata=RUN_TIME)
    max_detections: int = field(default=100, metadata=RUN_TIME)
    overlap_threshold: float = field(default=0.5, metadata=RUN_TIME)
    tracking_threshold: float = field(default=0.1, metadata=RUN_TIME)
    drop_frame_with_empty_masks: bool = field(default=True, metadata=RUN_TIME)
    mask_weight: float = 3.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    dice_eps: float = 1e-7
    sampling_eps: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_input()
        self.check_least(1, "num_classes", "nms_pre", "max_detections", "num_groups", "size_multiple")
        self.check_least(0, "freeze_at", "neck_width")
        self.check("grid", all(1 <= side <= MAX_GRID for side in self.grid), f"two numbers from 1 to {MAX_GRID}")
        self.check("memory_slots", self.memory_slots >= 4, "at least 4 (first, latest key and two latest frames)")
        self.check_share("class_prior")
        self.check_threshold(
            "score_threshold", "mask_threshold", "update_threshold", "overlap_threshold", "tracking_threshold",
            "focal_alpha", "sampling_eps",
        )  # fmt: skip
        self.check_positive("nms_sigma", "dice_eps")
        self.check_multiple(self.size_multiple, "height", "width")
        self.check_multiple(self.num_groups, "head_width", "mask_width", "track_dim")
        self.check("neck_width", self.neck_width % self.num_groups == 0, f"0 or a multiple of {self.num_groups}")

    @property
    def cells(self) -> int:
        """Number of grid cells; a cell index is `row * columns + column`."""
        return self.grid[0] * self.grid[1]


VARIANTS: dict[str, VISOLOConfig] = {
    "r50": VISOLOConfig(),
    "tiny": VISOLOConfig(
        backbone="efficientnet_lite0",
        freeze_at=0,
        train_norm=True,
        neck_width=128,
        head_width=96,
        mask_width=48,
        track_dim=64,
        num_groups=16,
        class_prior=0.01,
        tied_tracking=True,
        height=192,
        width=352,
        size_multiple=32,
        memory_slots=8,
    ),
}
