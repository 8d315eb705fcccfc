"""Official checkpoints of every layout and ResNet, starts from other variants, files of backbones."""

import json
import logging
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.visdeploy_training.methods.vishv.official import LAYOUTS, UNUSED, backbone, layout, state
from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training import convert_checkpoint, create_model, start_from
from visdeploy_training.checkpoint import Checkpoint
from visdeploy_training.methods.vishv import METHOD
from visdeploy_training.methods.vishv.weights import BANDWIDTHS, OFFICIAL, load_backbone

CASES = [(name, depth) for name in LAYOUTS for depth in (50, 101)]


@pytest.mark.parametrize(
    ("file", "name", "depth"),
    [
        ("manifest.json", "hierarchical_ytvis", 50),
        ("manifest_stemseg_davis.json", "stemseg_davis", 101),
        ("manifest_stemseg_kitti.json", "stemseg_kitti", 50),
    ],
)
def test_the_layouts_of_these_tests_are_those_of_the_reference(shared: Path, file: str, name: str, depth: int):
    manifest = json.loads((shared / "goldens/vishv" / file).read_text())
    assert layout(depth, **LAYOUTS[name]) == {each["name"]: tuple(each["shape"]) for each in manifest["params"]}


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_official_checkpoints_convert_whole(name: str, depth: int):
    official = state(layout(depth, **LAYOUTS[name]))
    found = convert_checkpoint({"model": {f"module.{k}": v for k, v in official.items()}, "iterations": 160_000})
    assert (found.method, found.variant, found.layout) == ("vishv", f"{name}_r{depth}", "official")
    assert (found.report.missing, found.report.unexpected, found.report.misshapen) == ((), (), ())
    assert len(found.report.loaded) == sum(not k.startswith(UNUSED) for k in official)
    assert found.info.overrides == {}


@pytest.mark.parametrize(
    ("name", "depth", "parameters"),
    [
        ("hierarchical_ytvis", 50, 60_930_585),
        ("hierarchical_ytvis", 101, 79_870_489),
        ("hierarchical_davis", 50, 58_969_369),
        ("stemseg_davis", 101, 67_408_962),
        ("stemseg_kitti", 50, 48_469_571),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, depth: int, parameters: int):
    with torch.device("meta"):
        model = create_model("vishv", f"{name}_r{depth}")
    unused = {k: v for k, v in layout(depth, **LAYOUTS[name]).items() if k.startswith("offset_decoder.conv1_cat.")}
    assert sum(p.numel() for p in model.parameters()) == parameters - sum(map(prod, unused.values()))


def test_old_checkpoints_have_layers_that_are_never_used():
    shapes = layout(50, **LAYOUTS["hierarchical_ytvis"])
    shapes |= {"offset_decoder.pooling_blocks.0.weight": (3, 3, 3), "offset_decoder.pooling_blocks.0.bias": (3,)}
    assert convert_checkpoint(state(shapes)).report.ok


def test_a_checkpoint_without_flow_is_a_network_without_flow():
    found = convert_checkpoint(state(layout(50, **LAYOUTS["hierarchical_davis"], flow=False)))
    assert found.report.ok
    assert found.info.overrides == {"flow": False}


def test_the_deviations_of_the_free_dimensions_are_those_of_the_checkpoint():
    official = state(layout(50, **LAYOUTS["stemseg_ytvis"]))
    official[BANDWIDTHS] = torch.tensor([[1 / 0.04, 1 / 0.25]])
    assert convert_checkpoint(official).info.overrides == {"free_dim_stds": (0.2, 0.5)}


@pytest.mark.parametrize("value", [torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[1.0, -1.0]])])
def test_wrong_deviations_are_refused(value: torch.Tensor):
    official = state(layout(50, **LAYOUTS["stemseg_ytvis"])) | {BANDWIDTHS: value}
    with pytest.raises(CheckpointError, match="free_dim_bandwidths"):
        convert_checkpoint(official)


def test_resnext_is_refused():
    official = state(layout(101, **LAYOUTS["stemseg_ytvis"]))
    official["backbone.body.layer1.0.conv2.weight"] = torch.zeros(256, 8, 3, 3)
    with pytest.raises(CheckpointError, match="X-101-FPN"):
        convert_checkpoint(official)
    with pytest.raises(ConfigError, match="X-101-FPN is not supported"):
        create_model("vishv", "stemseg_ytvis_r101", backbone="X-101-FPN")


def test_a_foreground_of_two_channels_has_one_class():
    shapes = layout(50, **{**LAYOUTS["stemseg_ytvis"], "semantic": (2, (256, 256, 256, 256))})
    found = convert_checkpoint(state(shapes))
    assert (found.report.ok, len(found.classes), found.info.overrides) == (True, 1, {"foreground_channel": False})


def small_start(name: str, **changes: Any) -> Checkpoint:
    """Return a checkpoint of a small network of a variant."""
    torch.manual_seed(1)
    model = create_model("vishv", name, num_classes=1 if "davis" in name else 3, **(SIZES | changes))
    info = model.info
    return Checkpoint(model.state_dict(), info, convert_report(model), "visdeploy")


SIZES: dict[str, Any] = {
    "backbone": "efficientnet_lite0",
    "pyramid_channels": 16,
    "decoder_channels": (16, 16, 8, 8),
    "semantic_channels": (16, 16, 8, 8),
    "num_groups": 4,
    "freeze_at": 0,
}


def convert_report(model: torch.nn.Module) -> Any:
    from visdeploy_training.checkpoint import match_keys

    return match_keys(model.state_dict(), model.state_dict())[1]


def test_stemseg_starts_a_hierarchical_network(caplog: pytest.LogCaptureFixture):
    """The log names every tensor that keeps its initial weights."""
    start = small_start("stemseg_ytvis_r50")
    model = create_model("vishv", "tiny", num_classes=3, **(SIZES | {"flow_steps": 1, "flow_width": 4}))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        start_from(model, start)
    head = "embedding_head.conv_"
    fresh = {f"{head}embedding.weight", f"{head}variance.weight", f"{head}variance.bias"}
    fresh |= {k for k in before if k.startswith(("offset_head.", "offset_decoder."))}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in fresh else start.state[name]), name
        assert (name in caplog.text) == (name in fresh)


def test_a_network_without_classes_starts_from_one():
    """The clip length and the free dimensions differ; layers in all decoders are equal."""
    start = small_start("stemseg_davis_r50", window=8)
    sizes = SIZES | {"flow_steps": 1, "flow_width": 4}
    report = start_from(create_model("vishv", "hierarchical_davis_r50", **sizes), start)
    assert {k.split(" ")[0] for k in report.misshapen} == set(METHOD.variable_tensors)


def test_another_kind_of_head_is_no_start():
    model = create_model("vishv", "tiny", num_classes=3, **(SIZES | {"flow_steps": 1, "flow_width": 4}))
    with pytest.raises(CheckpointError, match=r"missing, first embedding_head\.conv_seediness"):
        start_from(model, small_start("stemseg_davis_r50"))


def test_backbone_files_of_mask_rcnn(tmp_path: Path):
    path, shapes = tmp_path / "mask_rcnn_R_50_FPN_backbone.pth", backbone(50)
    torch.save({k: v.contiguous() for k, v in state(shapes, 0.25).items()}, path)
    model = create_model("vishv", "stemseg_kitti_r50", pretrained=path)
    loaded = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    assert len(loaded) == len(shapes)
    assert all(bool((value == 0.25).all()) for value in loaded.values())
    with pytest.raises(CheckpointError, match="not the ImageNet weights of resnet101"):
        load_backbone(create_model("vishv", "stemseg_kitti_r101"), path)


def test_no_weights_without_a_file():
    with pytest.raises(ConfigError, match="mask_rcnn_R_50_FPN_backbone"):
        create_model("vishv", "stemseg_kitti_r50", pretrained=True)


def test_imagenet_weights_of_the_small_backbone():
    model = create_model("vishv", "tiny", pretrained=True)
    assert float(model.state_dict()["backbone.body.stem.norm.running_var"].std()) > 0.1


def test_checkpoints_of_others_are_not_recognised():
    assert not OFFICIAL.recognise({"backbone.body.stem.conv1.weight": torch.zeros(64, 3, 7, 7)})
