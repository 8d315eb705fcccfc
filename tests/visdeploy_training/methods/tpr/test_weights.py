"""Official checkpoints of every backbone and kind of routing layer, the pre-training, and starts from files."""

import json
import logging
from math import prod
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from tests.goldens.seeded import seeded_array
from tests.visdeploy_training.methods.tpr.official import ALIGN, BODY, HEAD, INTEGERS, RESNETS, SWINS, layout, state
from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training import convert_checkpoint, create_model, start_from
from visdeploy_training.checkpoint import match_keys
from visdeploy_training.engine import load_recipe
from visdeploy_training.engine.training import build_model
from visdeploy_training.methods.tpr.weights import OFFICIAL, load_backbone

BACKBONES = [(name, False) for name in (*RESNETS, *SWINS)] + [("resnet101", True), ("resnet50", True)]
UNUSED = (f"{ALIGN}.fuse1.", "basis_module.seg_head.", "basis_module.logits.")


def used(state_dict: dict[str, torch.Tensor]) -> int:
    """Number of tensors that have a counterpart."""
    return sum(not k.startswith(UNUSED) and not k.endswith(INTEGERS) for k in state_dict)


@pytest.mark.parametrize("case", ["r50_sepc", "swint_routing"])
def test_the_layouts_of_these_tests_are_those_of_the_reference(shared: Path, case: str):
    """The reference listed the tensors of two networks."""
    manifest = json.loads((shared / "goldens/tpr/manifest.json").read_text())
    params = manifest["params"] if case == "r50_sepc" else manifest["variants"][case]["params"]
    mine = layout("resnet50", "sepc") if case == "r50_sepc" else layout("swin_t", "routing", deformable_tower=True)
    assert mine == {each["name"]: tuple(each["shape"]) for each in params}


@pytest.mark.parametrize(
    ("shapes", "tensors", "elements"),
    [
        (layout("resnet50", "sepc"), 516, 64.59),
        (layout("swin_t", "routing", deformable_tower=True), 516, 57.11),
        (layout("swin_l", "routing", deformable_tower=True), 684, 224.98),
    ],
)
def test_sizes_of_published_checkpoints(shapes, tensors: int, elements: float):
    assert len(shapes) == tensors
    assert sum(map(prod, shapes.values())) / 1e6 == pytest.approx(elements, abs=0.005)


@pytest.mark.parametrize("cpr", ["sepc", "routing"])
@pytest.mark.parametrize(("backbone", "deformable"), BACKBONES)
def test_official_checkpoints_convert_whole(backbone: str, deformable: bool, cpr: str):
    """Every combination; published are ResNets with plain towers, Swin Transformers with deformable ones."""
    swin = backbone in SWINS
    official = state(layout(backbone, cpr, deformable_backbone=deformable, deformable_tower=swin))
    found = convert_checkpoint({"model": official, "iteration": 11_520}, classes="ytvis2019")
    assert (found.method, found.layout, len(found.classes)) == ("tpr", "official", 40)
    assert (found.report.missing, found.report.unexpected, found.report.misshapen) == ((), (), ())
    assert len(found.report.loaded) == used(official)
    config = create_on_meta(found.variant, **found.info.overrides)
    assert (config.backbone, config.deformable_backbone, config.cpr) == (backbone, deformable, cpr)
    assert config.cpr_depths == {"sepc": (3, 2, 2, 1, 1), "routing": (3, 2, 1, 1, 1)}[cpr]
    assert (config.stage, config.deformable_tower) == ("video", swin)


@pytest.mark.parametrize(
    ("variant", "backbone", "deformable", "cpr"),
    [
        ("r50_sepc", "resnet50", False, "sepc"),
        ("r50_routing", "resnet50", False, "routing"),
        ("r101_sepc", "resnet101", False, "sepc"),
        ("r101_dcn_sepc", "resnet101", True, "sepc"),
        ("swin_t_routing", "swin_t", False, "routing"),
        ("swin_b_routing", "swin_b", False, "routing"),
        ("swin_l_routing", "swin_l", False, "routing"),
    ],
)
def test_named_variants_need_no_changed_field(variant: str, backbone: str, deformable: bool, cpr: str):
    shapes = layout(backbone, cpr, deformable_backbone=deformable, deformable_tower=backbone in SWINS)
    names = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert (OFFICIAL.variant(names), OFFICIAL.overrides(names)) == (variant, {})


@pytest.mark.parametrize("semantic", [True, False])
@pytest.mark.parametrize(("backbone", "deformable"), BACKBONES)
def test_checkpoints_of_the_pre_training_convert_whole(backbone: str, deformable: bool, semantic: bool):
    """The auxiliary head is not part of our networks made from such a file."""
    swin = backbone in SWINS
    shapes = layout(backbone, classes=80, deformable_backbone=deformable, deformable_tower=swin, semantic=semantic)
    assert any(name.startswith("basis_module.seg_head.") for name in shapes) is semantic
    found = convert_checkpoint(state(shapes), classes="coco")
    assert (found.report.missing, found.report.unexpected, found.report.misshapen) == ((), (), ())
    assert len(found.report.loaded) == used(state(shapes))
    config = create_on_meta(found.variant, num_classes=80, **found.info.overrides)
    assert (config.stage, config.semantic, config.backbone) == ("image", False, backbone)
    assert (config.deformable_backbone, config.deformable_tower) == (deformable, swin)


def create_on_meta(variant: str, **changes: object):
    with torch.device("meta"):
        return create_model("tpr", variant, **changes).config


def test_other_depths_of_routing_are_told():
    found = convert_checkpoint(state(layout("resnet50", "sepc", depths=(1, 0, 2, 1, 3), classes=7)))
    assert found.report.ok
    assert (found.variant, found.info.overrides) == ("r50_sepc", {"cpr_depths": (1, 0, 2, 1, 3)})
    assert len(found.classes) == 7


def test_tensors_without_counterpart_are_dropped():
    official = state(layout("swin_t", "sepc") | layout("swin_t", classes=40, semantic=True))
    kinds = ("num_batches_tracked", "relative_position_index", f"{ALIGN}.fuse1.conv.weight", "seg_head.0.weight")
    assert all(any(kind in name for name in official) for kind in kinds)
    renamed = OFFICIAL.rename(official)
    assert not [name for name in renamed if any(kind in name for kind in kinds)]


@pytest.mark.parametrize("container", ["model", "module", "bare"])
def test_containers_and_prefixes(tmp_path: Path, container: str):
    official = state(layout("resnet50", "sepc"))
    data: dict[str, object] = {"model": official, "optimizer": {"state": {}}, "iteration": 3}
    if container == "module":
        data = {"model": {f"module.{k}": v for k, v in official.items()}}
    elif container == "bare":
        data = dict(official)
    torch.save(data, tmp_path / "model_final.pth")
    found = convert_checkpoint(tmp_path / "model_final.pth")
    assert found.report.ok
    assert (found.variant, len(found.report.loaded)) == ("r50_sepc", used(official))


def test_wrong_tensors_are_reported():
    official = state(layout("resnet50", "sepc"))
    del official[f"{ALIGN}.fuse2_1.weight"]
    official["track_head.extra"] = torch.zeros(2)
    official["backbone.fpn_output3.bias"] = torch.zeros(3)
    report = convert_checkpoint(official).report
    assert report.missing == (f"{ALIGN}.fuse2_1.weight",)
    assert report.unexpected == ("track_head.extra",)
    assert report.misshapen == ("backbone.fpn.fpn_convs.0.conv.bias (seen (3,), expected (256,))",)


def test_values_arrive_under_their_names():
    """Seeded values of some tensors of each part, also of the pyramid, whose names differ."""
    pairs = {
        "backbone.fpn_lateral3.bias": "backbone.fpn.lateral_convs.1.conv.bias",
        "backbone.fpn_output5.bias": "backbone.fpn.fpn_convs.3.conv.bias",
        f"{BODY}.layers.2.blocks.5.mlp.fc1.bias": f"{BODY}.stages.2.blocks.5.ffn.layers.0.0.bias",
        f"{BODY}.layers.0.blocks.1.attn.qkv.bias": f"{BODY}.stages.0.blocks.1.attn.w_msa.qkv.bias",
        f"{HEAD}.cls_tower.9.offset.bias": f"{HEAD}.cls_tower.9.offset.bias",
        f"{ALIGN}.fuse_subnets.0.2.depth_module.gate.gate_conv.bias": "",
        "basis_module.tower.4.1.running_var": "",
        "track_head.sipmask_track.bias": "",
    }
    shapes = layout("swin_t", "routing", deformable_tower=True)
    official = state(shapes)
    official |= {name: torch.from_numpy(seeded_array(name, shapes[name])) for name in pairs}
    found = convert_checkpoint(official).state
    for name, ours in pairs.items():
        assert torch.equal(found[ours or name], official[name]), name


def test_blendmask_starts_the_training_of_tpr(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The published start: class predictor, alignment and track head are new; the log names each of their tensors."""
    blendmask = state(layout("resnet50", classes=80, semantic=True), value=0.25)
    torch.save({"model": blendmask}, tmp_path / "R_50_1x.pth")
    recipe = load_recipe("tpr_r50_sepc_ytvis2019", [f"init={tmp_path / 'R_50_1x.pth'}"])
    with caplog.at_level(logging.INFO):
        model = build_model(recipe)
    own = model.state_dict()
    kept = {name for name, value in own.items() if not torch.equal(value, torch.tensor(0.25).expand_as(value))}
    new = {name for name in own if name.startswith((f"{ALIGN}.", "track_head."))}
    new |= {f"{HEAD}.cls_logits.{leaf}" for leaf in ("weight", "bias")}
    assert kept == new
    assert all(name in caplog.text for name in new)
    assert f"{len(own) - len(new)} tensors" in caplog.text


def small(variant: str):
    sizes = {"channels": 16, "num_groups": 4, "basis_channels": 8, "track_dim": 8, "attention_size": 4}
    return create_model("tpr", variant, num_classes=3, cpr_depths=(1, 1, 1, 1, 1), **sizes)


def test_a_pre_training_of_ours_starts_the_video_stage():
    """The image stage has a semantic head, the video stage has not; other differences stay errors."""
    image, video = small("tiny_image"), small("tiny_sepc")
    for value in image.state_dict().values():
        value.fill_(0.25)
    report = start_from(video, convert_of(image))
    assert {name.split(".")[0] for name in report.missing} == {ALIGN, "track_head"}
    assert {".".join(name.split(".")[:2]) for name in report.unexpected} == {"basis_module.semantic"}
    assert not report.misshapen
    assert set(report.loaded) | set(report.missing) == set(video.state_dict())
    wider = create_model("tpr", "tiny_sepc", num_classes=3, channels=32, num_groups=4, basis_channels=8, track_dim=8)
    with pytest.raises(CheckpointError, match="misshapen"):
        start_from(wider, convert_of(image))


def convert_of(model):
    from visdeploy_training.checkpoint import Checkpoint

    tensors = model.state_dict()
    return Checkpoint(tensors, model.info, match_keys(tensors, tensors)[1], "visdeploy")


@pytest.mark.parametrize(("backbone", "variant"), [("resnet50", "r50_image"), ("resnet101", "r101_dcn_image")])
def test_imagenet_weights_of_a_resnet(tmp_path: Path, backbone: str, variant: str):
    """The original file has the classifier of ImageNet, and no offsets of deformable convolutions."""
    shapes = {k.removeprefix(f"{BODY}."): s for k, s in layout(backbone).items() if k.startswith(BODY)}
    torch.save(state(shapes) | {"stem.fc.weight": torch.zeros(2), "stem.fc.bias": torch.zeros(2)}, tmp_path / "r.pth")
    model = create_model("tpr", variant, num_classes=2, channels=16, num_groups=4, basis_channels=8)
    load_backbone(model, tmp_path / "r.pth")
    for name, value in model.get_submodule("backbone.bottom_up").state_dict().items():
        assert (value == (0.0 if "conv2_offset" in name else 0.5)).all(), name


def test_imagenet_weights_of_a_swin_transformer(tmp_path: Path):
    """A classifier's file has one norm at its end, and none for each stage."""
    shapes = {k.removeprefix(f"{BODY}."): s for k, s in layout("swin_t").items() if k.startswith(BODY)}
    file = {k: v for k, v in state(shapes).items() if not k.startswith("norm")}
    file |= {"head.weight": torch.zeros(2), "norm.weight": torch.zeros(768)}
    torch.save({"model": file}, tmp_path / "swin.pth")
    model = create_model("tpr", "swin_t_image", num_classes=2, channels=16, num_groups=4, basis_channels=8)
    load_backbone(model, tmp_path / "swin.pth")
    for name, value in model.get_submodule("backbone.bottom_up").state_dict().items():
        expected = 0.5 if not name.startswith("norm") else float(name.endswith("weight"))
        assert (value == expected).all(), name


def test_backbones_without_a_file_are_refused(tmp_path: Path):
    model = create_model("tpr", "r50_image", num_classes=2, channels=16, num_groups=4, basis_channels=8)
    with pytest.raises(ConfigError, match="resnet50"):
        load_backbone(model, None)
    torch.save(state({"stem.conv1.weight": (64, 3, 7, 7)}), tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="resnet50"):
        load_backbone(model, tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("variant", "build", "hint"),
    [
        ("r50_sepc", lambda: torchvision.models.resnet50(weights=None), "in the names of detectron2"),
        ("swin_t_routing", lambda: timm.create_model("swin_tiny_patch4_window7_224"), "authors of Swin"),
    ],
)
def test_backbones_of_other_packages_are_refused_with_the_file_to_use(tmp_path, variant, build, hint):
    """Such files have the same parameters in other places: loaded by name, they would give a wrong network."""
    torch.save(build().state_dict(), tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match=hint):
        create_model("tpr", variant, pretrained=tmp_path / "backbone.pth")
