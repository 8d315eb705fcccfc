"""Wrong configurations, and the description of the graph."""

from typing import Any

import pytest

from visdeploy.errors import ConfigError
from visdeploy_training import create_model
from visdeploy_training.methods.vishv import METHOD, VARIANTS

KITTI, YTVIS, DAVIS = (f"stemseg_{name}_r50" for name in ("kitti", "ytvis", "davis"))
TINY = "tiny"


@pytest.mark.parametrize(
    ("variant", "change", "field"),
    [
        (TINY, {"window": 6}, "window"),
        (TINY, {"clip_overlap": 8}, "clip_overlap"),
        (TINY, {"backbone": "vgg"}, "backbone"),
        (TINY, {"height": 100}, "height"),
        (TINY, {"height": 64}, "height"),
        (TINY, {"num_groups": 7}, "decoder_channels"),
        (TINY, {"time_scale": 0.0}, "time_scale"),
        (TINY, {"free_dim_stds": (0.3, 0.0)}, "free_dim_stds"),
        (TINY, {"free_dim_stds": (0.3, "wide")}, "free_dim_stds"),
        (TINY, {"position": "yx"}, "appearance"),
        (TINY, {"free_dim_stds": ()}, "appearance"),
        (TINY, {"appearance": False}, "flow"),
        (TINY, {"flow": False, "flow_conditional": True}, "flow_conditional"),
        (TINY, {"flow_input_gradient": "rounded"}, "flow_input_gradient"),
        (TINY, {"flow_bits": 9}, "flow_bits"),
        (TINY, {"foreground_channel": False}, "foreground_channel"),
        (TINY, {"min_seediness": 1.5}, "min_seediness"),
        (YTVIS, {"appearance": True}, "appearance"),
        (DAVIS, {"output": "ytvis"}, "output"),
        (KITTI, {"max_tracks": 0}, "max_tracks"),
    ],
)
def test_wrong_configurations_are_refused(variant: str, change: dict[str, Any], field: str):
    with pytest.raises(ConfigError, match=rf"vishv: {field} has a wrong value"):
        create_model("vishv", variant, **change)


def test_classes_need_a_semantic_head():
    with pytest.raises(ConfigError, match="num_classes"):
        create_model("vishv", DAVIS, num_classes=3)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_graph_of_every_variant(variant: str):
    config = VARIANTS[variant]
    spec = METHOD.inference(config)
    shapes = {each.name: each.shape for each in spec.outputs}
    length = config.window
    assert spec.inputs[0].shape == [length, 3, "height", "width"]
    assert shapes["embeddings"] == [length, {"yx": 2, "tyx": 3}[config.position] + config.free_dims, *QUARTER]
    assert shapes["bandwidths"] == [length, len(config.position), *QUARTER]
    assert shapes["seediness"] == [length, *QUARTER]
    semantic = {"class_logits": [length, config.num_classes + 1, *QUARTER], "foreground_logits": [length, *QUARTER]}
    assert {k: v for k, v in shapes.items() if k in semantic} == (semantic if config.semantic else {})
    assert spec.decode["free_dim_stds"] == [0.3] * config.free_dims
    assert (spec.window.length, spec.window.overlap) == (length, config.clip_overlap)
    assert spec.window.short_video == "repeat_first_frame"
    assert spec.dims["height"].minimum == spec.dims["width"].minimum == 96


QUARTER = ["height/4", "width/4"]


def test_published_settings():
    kitti, davis = VARIANTS[KITTI], VARIANTS["hierarchical_davis_r101"]
    assert (kitti.num_classes, kitti.semantic_dims, kitti.min_seediness, kitti.max_tracks) == (2, 4, 0.95, 1000)
    assert (davis.window, davis.clip_overlap, davis.embedding_dims, davis.separate_seediness) == (16, 6, 6, True)
    assert VARIANTS["hierarchical_ytvis_r50"].semantic_dims == 42
