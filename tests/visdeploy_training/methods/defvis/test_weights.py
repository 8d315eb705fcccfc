import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.goldens.seeded import seeded_array
from visdeploy.errors import CheckpointError
from visdeploy_training import convert_checkpoint, create_model, load_checkpoint, save_checkpoint
from visdeploy_training.methods.defvis.weights import load_relative

StateDict = dict[str, torch.Tensor]
SMALL: dict[str, Any] = {"num_frames": 2, "encoder_layers": 2, "decoder_layers": 2}


def official_name(name: str) -> str:
    """Convert our names to the official ones, independently of the renaming under test."""
    if name.startswith("backbone."):
        name = re.sub(r"^backbone\.stem\.", "backbone.", name)
        name = re.sub(r"^backbone\.res(\d)", lambda m: f"backbone.layer{int(m[1]) - 1}", name)
        name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
        name = re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)
        return name.replace("backbone.", "vistr.backbone.0.body.", 1)
    heads = ("bbox_attention.", "mask_head.", "insmask_head.")
    return name if name.startswith(heads) else f"vistr.{name}"


def official_state(variant: str, *, seeded: bool = True, **changes: Any) -> StateDict:
    with torch.device("meta"):
        shapes = create_model("defvis", variant, **changes).state_dict()
    state = {official_name(k): v for k, v in shapes.items()}
    if seeded:
        return {k: torch.from_numpy(seeded_array(k, v.shape)) for k, v in state.items()}
    return {k: torch.zeros(v.shape) for k, v in state.items()}


@pytest.mark.parametrize(
    ("variant", "tensors"), [("inst_r50", 528), ("inst_r101", 783), ("enc_r50", 527), ("enc_r101", 782)]
)
def test_official_checkpoints_convert_whole(tmp_path: Path, variant: str, tensors: int):
    """No key is missing or unexpected; the counts are those of the official checkpoints."""
    state = official_state(variant, seeded=False)
    extra = {
        "vistr.backbone.0.body.bn1.num_batches_tracked": torch.tensor(0),
        "vistr.resizer.fc.weight": torch.zeros(2),
    }
    torch.save({"model": {f"module.{k}": v for k, v in (state | extra).items()}, "epoch": 3}, tmp_path / "official.pth")
    found = convert_checkpoint(tmp_path / "official.pth", classes="ytvis2019")
    assert (found.method, found.variant, found.layout) == ("defvis", variant, "official")
    assert (found.report.missing, found.report.unexpected, found.report.misshapen) == ((), (), ())
    assert len(found.report.loaded) == len(state) == tensors
    assert not found.info.overrides


def marks(*names: str) -> StateDict:
    """Return the few tensors by which a file is recognised, and its variant."""
    state = {"insmask_head.0.weight": torch.zeros(1), "vistr.class_embed.weight": torch.zeros(5, 1)}
    offsets = "vistr.transformer.encoder.layers.0.self_attn.sampling_offsets.weight"
    return state | {offsets: torch.zeros(96 * 36, 1)} | {name: torch.zeros(1) for name in names}


DEEP = "vistr.backbone.0.body.layer3.6.conv1.weight"


@pytest.mark.parametrize(
    ("names", "args", "variant"),
    [
        ((), {}, "enc_r50"),
        ((), {"dilation": False}, "enc_r50"),
        ((), {"dilation": None}, "enc_r50"),
        ((), {"dilation": True}, "enc_r50_dc5"),
        ((), {"dilation": 1, "lr": 1e-4}, "enc_r50_dc5"),
        ((DEEP,), {"dilation": True}, "enc_r101_dc5"),
    ],
)
@pytest.mark.parametrize("kind", [dict, lambda values: Namespace(**values)])
def test_the_dilation_is_read_from_the_arguments(tmp_path: Path, names: Any, args: Any, variant: str, kind: Any):
    data = {"model": marks(*names), "args": kind(args)}
    torch.save(data, tmp_path / "a.pth")
    for source in (data, tmp_path / "a.pth"):
        found = convert_checkpoint(source)
        assert (found.variant, dict(found.info.overrides)) == (variant, {})
        assert convert_checkpoint(source, variant=variant).variant == variant


def test_the_dilation_of_another_clip_length_is_read_too():
    state = marks()
    state["vistr.transformer.encoder.layers.0.self_attn.sampling_offsets.weight"] = torch.zeros(96 * 4, 1)
    found = convert_checkpoint({"model": state, "args": {"dilation": True}})
    assert (found.variant, dict(found.info.overrides)) == ("enc_r50_dc5", {"num_frames": 4})


@pytest.mark.parametrize(("dilation", "chosen", "right"), [(True, "", "_dc5"), (False, "_dc5", "")])
def test_a_variant_that_contradicts_the_arguments_is_refused(dilation: bool, chosen: str, right: str):
    data = {"model": marks(), "args": Namespace(dilation=dilation)}
    with pytest.raises(CheckpointError, match=rf"enc_r50{chosen} .*dilated={dilation}.*variant enc_r50{right}\)"):
        convert_checkpoint(data, variant=f"enc_r50{chosen}")


@pytest.mark.parametrize("value", [2, "true", [1], torch.ones(2), 0.5, 10**3000])
def test_a_malformed_dilation_is_refused(value: Any):
    with pytest.raises(CheckpointError, match="an argument of the training"):
        convert_checkpoint({"model": marks(), "args": {"dilation": value}})


@pytest.mark.parametrize("args", [None, "dilation", [("dilation", True)], 3])
def test_arguments_of_another_kind_are_ignored(args: Any):
    assert convert_checkpoint({"model": marks(), "args": args}).variant == "enc_r50"


def test_a_dilated_backbone_is_named_by_the_variant():
    """The DC5 variant has the same tensors, so without the arguments it cannot be recognised from a file."""
    found = convert_checkpoint(official_state("enc_r50_dc5", seeded=False), variant="enc_r50_dc5")
    assert found.report.ok
    assert found.variant == "enc_r50_dc5"
    assert found.build().config.dilated


def test_seeded_checkpoint_of_another_clip_length(shared: Path, tmp_path: Path):
    """The golden folder's own list of tensors, so that no name of ours takes part."""
    import json

    params = json.loads((shared / "goldens/defvis/inst_r50_t4.json").read_text())["params"]
    state = {p["name"]: torch.from_numpy(seeded_array(p["name"], p["shape"])) for p in params}
    found = convert_checkpoint({"model": state})
    assert found.report.ok
    assert (found.variant, found.info.overrides, len(found.classes)) == ("inst_r50", {"num_frames": 4}, 40)
    saved = save_checkpoint(found, tmp_path / "ours.safetensors")
    model, info = load_checkpoint(saved)
    assert (model.config.num_frames, info.overrides) == (4, {"num_frames": 4})
    key = "mask_head.lay1.weight"
    assert torch.equal(model.state_dict()[key], state[key])
    key = "vistr.backbone.0.body.layer3.0.downsample.1.running_var"
    assert torch.equal(model.backbone.res4[0].shortcut.norm.running_var, state[key])


def test_plain_vistr_is_no_defvis():
    state = official_state("enc_r50", seeded=False)
    dense = {k.replace("sampling_offsets", "in_proj"): v for k, v in state.items()}
    with pytest.raises(CheckpointError, match="unknown layout"):
        convert_checkpoint({"model": dense})


def test_bare_state_dict_counts_its_classes():
    model = create_model("defvis", "tiny", num_classes=7, hidden_dim=48, mask_groups=1, num_heads=4)
    found = convert_checkpoint(model.state_dict(), method="defvis", variant="tiny")
    assert (found.layout, len(found.classes)) == ("bare", 7)


@pytest.fixture(scope="module")
def detr() -> StateDict:
    """Return a DETR segmentation checkpoint as the upstream start takes it: width 384, dense encoder, `detr.` names."""
    state: StateDict = {}
    for key, value in official_state("enc_r50", **SMALL).items():
        part = key.replace("vistr.", "detr.")
        if ".encoder." in key and ".self_attn." in key:
            part = re.sub(r"self_attn\..*", "self_attn.in_proj_weight", part)
            value = torch.zeros(1152, 384)
        state[part] = value
    state["detr.class_embed.weight"] = torch.zeros(92, 384)
    state["detr.query_embed.weight"] = torch.zeros(100, 384)
    return state


def test_start_from_detr(tmp_path: Path, detr: StateDict):
    torch.manual_seed(0)
    torch.save({"model": detr}, tmp_path / "detr.pth")
    model = create_model("defvis", "inst_r50", num_classes=4, pretrained=tmp_path / "detr.pth", **SMALL)
    state = model.state_dict()
    for key in ("transformer.encoder.layers.1.linear1.weight", "transformer.decoder.norm.bias", "input_proj.weight"):
        assert torch.equal(state[key], detr[f"detr.{key}"])
    assert torch.equal(state["mask_head.lay2.weight"], detr["mask_head.lay2.weight"])
    assert torch.equal(state["backbone.res5.2.conv3.weight"], detr["detr.backbone.0.body.layer4.2.conv3.weight"])
    assert state["query_embed.weight"].any()
    report = load_relative(model, detr, where="detr.pth")
    fresh = {k for k in report.missing if ".self_attn." not in k}
    assert fresh == {
        "transformer.instance_encoders.weight",
        "query_embed.weight",
        "class_embed.weight",
        "class_embed.bias",
    }
    assert set(report.unexpected) == {f"transformer.encoder.layers.{i}.self_attn.in_proj_weight" for i in (0, 1)}
    assert not report.misshapen


def deformable_detr(width: int) -> StateDict:
    """Return names and shapes of Deformable DETR's COCO checkpoints, four levels, one layer of each stack."""
    state = {k.removeprefix("vistr."): v for k, v in official_state("enc_r50").items() if ".backbone." in k}
    shapes: dict[str, tuple[int, ...]] = {"transformer.level_embed": (4, width), "query_embed.weight": (300, 2 * width)}
    for part, norms, attention in (("encoder", 2, "self_attn"), ("decoder", 3, "cross_attn")):
        layer = f"transformer.{part}.layers.0"
        shapes |= {f"{layer}.norm{i + 1}.{leaf}": (width,) for i in range(norms) for leaf in ("weight", "bias")}
        shapes |= {f"{layer}.linear1.weight": (1024, width), f"{layer}.linear2.weight": (width, 1024)}
        shapes |= {f"{layer}.{attention}.value_proj.weight": (width, width)}
        shapes |= {f"{layer}.{attention}.sampling_offsets.weight": (256, width)}
    shapes |= {"transformer.decoder.layers.0.self_attn.in_proj_weight": (3 * width, width)}
    shapes |= {"class_embed.0.weight": (91, width), "bbox_embed.0.layers.0.weight": (width, width)}
    shapes |= {"input_proj.0.0.weight": (width, 512, 1, 1), "input_proj.0.1.weight": (width,)}
    return state | {k: torch.from_numpy(seeded_array(k, s)) for k, s in shapes.items()}


def test_start_from_deformable_detr_as_published(tmp_path: Path):
    """Width 256 fits nothing but the backbone, all of it."""
    state = deformable_detr(256)
    torch.save({"model": state, "epoch": 49}, tmp_path / "deformable.pth")
    model = create_model("defvis", "inst_r50", num_classes=4, pretrained=tmp_path / "deformable.pth", **SMALL)
    report = load_relative(model, state, where="deformable.pth")
    assert {k.split(".")[0] for k in report.loaded} == {"backbone"}
    assert len(report.loaded) == len(model.backbone.state_dict()) == 265
    assert torch.equal(model.backbone.stem.conv1.weight, state["backbone.0.body.conv1.weight"])


def test_start_from_deformable_detr_of_the_same_width():
    """Its decoder's first norm stands behind the cross-attention, ours behind the self-attention."""
    state = deformable_detr(240)
    changes = SMALL | {"hidden_dim": 240, "feedforward_dim": 1024, "mask_groups": 1}
    model = create_model("defvis", "enc_r50", num_classes=4, **changes)
    report = load_relative(model, state, where="deformable.pth")
    layer, ours = "transformer.decoder.layers.0", model.state_dict()
    assert torch.equal(ours[f"{layer}.norm1.weight"], state[f"{layer}.norm2.weight"])
    assert torch.equal(ours[f"{layer}.norm2.weight"], state[f"{layer}.norm1.weight"])
    assert f"{layer}.self_attn.in_proj_weight" in report.loaded
    assert "transformer.encoder.layers.0.self_attn.value_proj.weight" in report.loaded
    assert any("sampling_offsets" in k for k in report.misshapen)
    assert not any(k.startswith(("bbox_embed", "class_embed", "input_proj", "query_embed")) for k in report.loaded)


def test_a_backbone_of_another_depth_is_refused(detr: StateDict):
    model = create_model("defvis", "inst_r101", num_classes=4, **SMALL)
    with pytest.raises(CheckpointError, match="resnet101"):
        load_relative(model, detr, where="detr.pth")


def test_torchvision_backbone(tmp_path: Path):
    import torchvision

    theirs = torchvision.models.resnet50(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    model = create_model("defvis", "enc_r50", num_classes=2, pretrained=tmp_path / "resnet50.pth", **SMALL)
    assert torch.equal(model.backbone.res5[0].shortcut.weight, theirs.layer4[0].downsample[0].weight)
