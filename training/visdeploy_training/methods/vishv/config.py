"""Configuration of VIShv and STEm-Seg networks, and the named variants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from visdeploy.errors import ConfigError
from visdeploy_training.config import CALLED, MAX_LAYERS, MOST, RUN_TIME, MethodConfig

SIZE_MULTIPLE = 32
"""Divisor of the height and width of every input."""
SMALLEST = 96
"""Smallest side of an input: the coarsest map must not be smaller than the kernels of the temporal pooling."""
WINDOWS = (2, 4, 8, 16, 24, 32)
"""Numbers of frames for which the decoders have a layout."""
UNSUPPORTED = ("X-101-FPN", "resnext101", "resnext_101")


@dataclass(frozen=True)
class VIShvConfig(MethodConfig):
    """Configuration of a VIShv network ("Hierarchical embeddings for video instance segmentation", ACM MM 2021).

    Without the appearance decoder, it is a STEm-Seg network (Athar et al., ECCV 2020).

    Attributes:
        num_classes: Number of object classes, no background; 1 without a semantic head.
        backbone: Feature extractor.
        freeze_at: Number of leading backbone stages that are frozen; the stem counts as one.
        freeze_backbone: Do not train the backbone and its pyramid.
        pyramid_channels: Channels of the feature pyramid.
        decoder_channels: Channels of the embedding and seediness decoders at strides 32, 16, 8 and 4.
        semantic_channels: The same for the semantic decoder.
        norm: Norm of the decoders.
        num_groups: Groups of all group norms.
        pool: Temporal pooling of the decoders.
        position: Coordinates that are part of the embedding, in order.
        time_scale: Largest time coordinate of a clip, of an untrained network. A checkpoint has its own value, a
            published one 1.
        free_dim_stds: Standard deviation of a cluster in each further dimension of the embedding.
        appearance: Predict the centre of the further dimensions with an appearance decoder (VIShv).
        appearance_dim: Hidden channels of the appearance decoder.
        semantic: Semantic head with classes and foreground.
        foreground_channel: The semantic head has a separate foreground channel; otherwise there is one class, whose
            probability is the foreground.
        separate_seediness: Seediness from a decoder of its own, not from the embedding head.
        flow: Normalising flow of the appearance embedding, for the training.
        flow_steps: Flow steps of a level.
        flow_levels: Levels of the flow.
        flow_affine: Affine instead of additive couplings.
        flow_lu: 1x1 convolutions in LU form in all levels; otherwise only in the last one.
        flow_width: Hidden channels of the couplings.
        flow_bits: Bits per value of the input of the flow.
        flow_chunk: Frames for which the flow is computed together.
        flow_conditional: Flow conditioned on the union of the masks of a frame (figure of the paper; not part of the
            published implementation).
        flow_input_gradient: `none` rounds the input of the flow without a gradient, as the published implementation
            does, so that the flow loss trains the flow alone; `straight_through` ignores the rounding in the gradient.
        offset_detach: No gradient from the embeddings to the appearance decoder, as in the published implementation.
        flow_iterations: Iterations at the start of a training in which only the flow loss is computed.
        height: Rows of training images, for transforms to one size.
        width: Columns of training images, for transforms to one size.
        shortest_edge: Length to which the shorter edge of a frame is scaled.
        longest_edge: Largest length of the longer edge.
        pixel_mean: 0..255, in the order of the channels of the network input: BGR, or RGB for EfficientNet.
        pixel_std: The same for the standard deviation.
        window: Frames of a clip: 2, 4, 8, 16, 24 or 32.
        clip_overlap: Frames that consecutive clips share, less than `window`.
        resize_embeddings: Cluster at the size of the network input instead of a quarter of it.
        min_seediness: Minimum seediness of the pixel at which a cluster starts.
        primary_threshold: Minimum probability of the pixels of a cluster.
        secondary_threshold: Minimum probability of remaining pixels that are assigned afterwards.
        max_clusters: Maximum number of clusters of a clip.
        seediness_threshold: Minimum seediness of the foreground without a semantic head.
        output: Data set whose rules for the order, the number and the categories of tracks apply.
        max_tracks: Maximum number of tracks of a video.
        lovasz_weight: Weight of the Lovász hinge.
        smoothness_weight: Weight of the smoothness of the bandwidths.
        seediness_weight: Weight of the seediness loss.
        flow_weight: Weight of the flow loss.
        semantic_weight: Weight of the semantic and the foreground loss.
    """

    method: ClassVar[str] = "vishv"

    num_classes: int = 40
    backbone: Literal["resnet50", "resnet101", "efficientnet_lite0"] = "resnet50"
    freeze_at: int = 2
    freeze_backbone: bool = False
    pyramid_channels: int = 256
    decoder_channels: tuple[int, int, int, int] = (256, 256, 128, 128)
    semantic_channels: tuple[int, int, int, int] = (256, 256, 256, 256)
    norm: Literal["group", "none"] = "group"
    num_groups: int = 32
    pool: Literal["avg", "max"] = "avg"
    position: Literal["yx", "tyx"] = "tyx"
    time_scale: float = 1.0
    free_dim_stds: tuple[float, ...] = (0.3, 0.3, 0.3)
    appearance: bool = True
    appearance_dim: int = 64
    semantic: bool = True
    foreground_channel: bool = True
    separate_seediness: bool = False
    flow: bool = True
    flow_steps: int = 32
    flow_levels: int = 1
    flow_affine: bool = False
    flow_lu: bool = False
    flow_width: int = 512
    flow_bits: int = 5
    flow_chunk: int = 4
    flow_conditional: bool = False
    flow_input_gradient: Literal["none", "straight_through"] = "none"
    offset_detach: bool = True
    flow_iterations: int = field(default=2000, metadata={MOST: 2**31 - 1})
    height: int = 352
    width: int = 640
    shortest_edge: int = 352
    longest_edge: int = 640
    pixel_mean: tuple[float, float, float] = (102.9801, 115.9465, 122.7717)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    window: int = field(default=8, metadata=RUN_TIME)
    clip_overlap: int = field(default=4, metadata=RUN_TIME | {CALLED: "overlap"})
    resize_embeddings: bool = field(default=False, metadata=RUN_TIME)
    min_seediness: float = field(default=0.8, metadata=RUN_TIME)
    primary_threshold: float = field(default=0.5, metadata=RUN_TIME)
    secondary_threshold: float = field(default=0.3, metadata=RUN_TIME)
    max_clusters: int = field(default=20, metadata=RUN_TIME)
    seediness_threshold: float = field(default=0.25, metadata=RUN_TIME)
    output: Literal["ytvis", "davis", "kittimots"] = field(default="ytvis", metadata=RUN_TIME)
    max_tracks: int = field(default=10, metadata=RUN_TIME)
    lovasz_weight: float = 1.0
    smoothness_weight: float = 10.0
    seediness_weight: float = 1.0
    flow_weight: float = 1.0
    semantic_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.backbone in UNSUPPORTED:
            raise ConfigError(
                "vishv: X-101-FPN is not supported",
                seen=repr(self.backbone),
                expected="resnet50, resnet101 or efficientnet_lite0",
                hint="The published implementation registers this name without its stages; use a ResNet.",
            )
        super().__post_init__()
        self.check_input()
        self._check_network()
        self._check_flow()
        self.check_multiple(SIZE_MULTIPLE, "height", "width")
        self.check_least(SMALLEST, "height", "width")
        self.check_least(1, "shortest_edge", "longest_edge", "max_clusters", "max_tracks")
        self.check("window", self.window in WINDOWS, f"one of {', '.join(map(str, WINDOWS))}")
        self.check_least(0, "clip_overlap")
        self.check_threshold("min_seediness", "primary_threshold", "secondary_threshold", "seediness_threshold")

    def _check_network(self) -> None:
        self.check_least(1, "num_classes", "pyramid_channels", "num_groups", "appearance_dim")
        self.check_least(0, "freeze_at")
        for name in ("decoder_channels", "semantic_channels"):
            groups = self.num_groups if self.norm == "group" else 1
            good = all(c > 0 and c % groups == 0 for c in getattr(self, name))
            self.check(name, good, f"positive multiples of {groups} groups")
        self.check_positive("time_scale")
        self.check("free_dim_stds", all(s > 0 for s in self.free_dim_stds), "positive numbers")
        wanted = "true only with a position of t, y and x and with free dimensions"
        usable = self.position == "tyx" and self.free_dims > 0
        self.check("appearance", usable or not self.appearance, wanted)
        self.check("foreground_channel", self.foreground_channel or self.num_classes == 1, "true with several classes")
        self.check("num_classes", self.semantic or self.num_classes == 1, "1 without a semantic head")
        self.check("output", self.semantic or self.output == "davis", "davis without a semantic head")

    def _check_flow(self) -> None:
        self.check_most(MAX_LAYERS, "flow_steps", "flow_levels")
        self.check_least(1, "flow_steps", "flow_levels", "flow_width", "flow_chunk")
        self.check("flow_bits", 1 <= self.flow_bits <= 8, "1 to 8")
        self.check_least(0, "flow_iterations")
        self.check("flow", self.appearance or not self.flow, "false without the appearance decoder")
        self.check("flow_conditional", self.flow or not self.flow_conditional, "false without a flow")

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """Return the shorter and the longer edge to change, see `MethodConfig.input_size`."""
        return self.edges(height, width)

    def check_given(self, given: Collection[str]) -> None:
        """See `MethodConfig.check_given`."""
        self.check_overlap(given, self.window)

    @property
    def channel_order(self) -> Literal["rgb", "bgr"]:
        """See `MethodConfig.channel_order`; the published backbones take BGR."""
        return "rgb" if self.backbone == "efficientnet_lite0" else "bgr"

    @property
    def free_dims(self) -> int:
        """Number F of dimensions of the embedding without a predicted bandwidth."""
        return len(self.free_dim_stds)

    @property
    def bandwidth_dims(self) -> int:
        """Number B of dimensions of the embedding with a predicted bandwidth: the coordinates."""
        return len(self.position)

    @property
    def embedding_dims(self) -> int:
        """Number E of dimensions of the embedding."""
        return self.bandwidth_dims + self.free_dims

    @property
    def semantic_dims(self) -> int:
        """Channels of the semantic head: background, classes, and the foreground if it is separate."""
        return self.num_classes + 1 + int(self.foreground_channel)
