"""Named variants of VIShv and STEm-Seg."""

from __future__ import annotations

from dataclasses import replace

from visdeploy_training.methods.vishv.config import VIShvConfig

_HIERARCHICAL = VIShvConfig()
_DAVIS = replace(
    _HIERARCHICAL,
    num_classes=1,
    semantic=False,
    separate_seediness=True,
    height=384,
    width=640,
    shortest_edge=368,
    longest_edge=624,
    window=16,
    clip_overlap=6,
    output="davis",
    max_tracks=20,
)
_STEMSEG = replace(
    _HIERARCHICAL,
    position="yx",
    free_dim_stds=(0.3, 0.3),
    appearance=False,
    flow=False,
    flow_iterations=0,
    height=640,
    width=1152,
    shortest_edge=640,
    longest_edge=1196,
)
_STEMSEG_DAVIS = replace(
    _STEMSEG,
    num_classes=1,
    semantic=False,
    separate_seediness=True,
    height=736,
    width=1248,
    shortest_edge=736,
    longest_edge=1248,
    window=16,
    clip_overlap=6,
    output="davis",
    max_tracks=20,
)
_STEMSEG_KITTI = replace(
    _STEMSEG,
    num_classes=2,
    semantic_channels=(256, 256, 128, 128),
    position="tyx",
    free_dim_stds=(),
    height=736,
    width=1248,
    shortest_edge=736,
    longest_edge=1792,
    min_seediness=0.95,
    output="kittimots",
    max_tracks=1000,
)
_TINY = VIShvConfig(
    backbone="efficientnet_lite0",
    freeze_at=0,
    pyramid_channels=48,
    decoder_channels=(48, 48, 32, 32),
    semantic_channels=(48, 48, 32, 32),
    num_groups=8,
    time_scale=0.25,  # so that clusters need not become as long as a clip in a short training
    appearance_dim=16,
    offset_detach=False,  # random appearance embeddings separate the pixels of an object
    flow_steps=4,
    flow_width=32,
    flow_iterations=100,
    height=192,
    width=352,
    shortest_edge=192,
    longest_edge=352,
    pixel_mean=(127.0, 127.0, 127.0),
    pixel_std=(128.0, 128.0, 128.0),
)
_LAYOUTS = {
    "hierarchical_ytvis": _HIERARCHICAL,
    "hierarchical_davis": _DAVIS,
    "stemseg_ytvis": _STEMSEG,
    "stemseg_davis": _STEMSEG_DAVIS,
    "stemseg_kitti": _STEMSEG_KITTI,
}
VARIANTS: dict[str, VIShvConfig] = {
    f"{name}_r{depth}": replace(layout, backbone="resnet50" if depth == 50 else "resnet101")
    for name, layout in _LAYOUTS.items()
    for depth in (50, 101)
}
VARIANTS["tiny"] = _TINY
