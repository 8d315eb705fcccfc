import json
from pathlib import Path
from typing import Any

import pytest
import torch

from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training import convert_checkpoint, create_model
from visdeploy_training.backbones import SwinTransformer
from visdeploy_training.backbones.swin import from_swin
from visdeploy_training.methods.tevit.weights import load_backbone, load_queryinst

StateDict = dict[str, torch.Tensor]
SMALL: dict[str, Any] = {
    "num_queries": 3,
    "hidden_dim": 16,
    "dynamic_dim": 2,
    "feedforward_dim": 8,
    "mask_convs": 1,
    "max_results": 2,
}


def official(shared: Path, file: str) -> StateDict:
    """Return the golden folder's list of tensors: upstream's names, with one value in memory each."""
    params = json.loads((shared / "goldens/tevit" / file).read_text())["params"]
    kinds = {"int64": torch.int64, "float32": torch.float32}
    return {p["name"]: torch.zeros((), dtype=kinds[p["dtype"]]).expand(p["shape"]) for p in params}


@pytest.mark.parametrize(
    ("file", "variant", "tensors", "kept"),
    [
        ("manifest.json", "msgshift", 623, 623),
        ("keys_r50.json", "r50", 780, 727),  # without the counters of the backbone's batch norms
        ("keys_swin_l.json", "swin_l", 819, 795),  # without the indices of relative positions
    ],
)
def test_official_checkpoints_convert_whole(shared: Path, file: str, variant: str, tensors: int, kept: int):
    state = official(shared, file)
    found = convert_checkpoint({"state_dict": {f"module.{k}": v for k, v in state.items()}, "meta": {}})
    assert (found.method, found.variant, found.layout, len(found.classes)) == ("tevit", variant, "official", 40)
    assert (found.report.missing, found.report.unexpected, found.report.misshapen) == ((), (), ())
    assert (len(state), len(found.report.loaded), dict(found.info.overrides)) == (tensors, kept, {})


def test_other_numbers_of_queries_and_missing_keys_are_told(shared: Path):
    state = official(shared, "manifest.json")
    state["rpn_head.init_proposal_bboxes.weight"] = torch.zeros(30, 4)
    state["rpn_head.init_proposal_features.weight"] = torch.zeros(30, 256)
    del state["neck.fpn_convs.2.conv.bias"]
    state["roi_head.extra"] = torch.zeros(1)
    found = convert_checkpoint(state)
    assert found.info.overrides == {"num_queries": 30}
    assert (found.report.missing, found.report.unexpected) == (("neck.fpn_convs.2.conv.bias",), ("roi_head.extra",))


def to_original(state: StateDict) -> StateDict:
    """Convert to names and patch merging of the original Swin, independently of the renaming under test."""
    found = {}
    for key, value in state.items():
        name = key.replace("patch_embed.projection", "patch_embed.proj").replace("stages.", "layers.")
        name = (
            name.replace(".w_msa.", ".").replace(".ffn.layers.0.0.", ".mlp.fc1.").replace(".ffn.layers.1.", ".mlp.fc2.")
        )
        if "downsample" in key:
            channels = value.shape[-1] // 4
            # there: pixel outside, column before row; here: channel outside, row before column
            order = [c * 4 + row * 2 + column for column in (0, 1) for row in (0, 1) for c in range(channels)]
            value = value[..., order]
        found[name] = value
    return found


def test_original_swin_names_and_merging():
    swin = SwinTransformer(dim=8, depths=(1, 1), heads=(1, 2))
    state = {k: torch.randn(v.shape) for k, v in swin.state_dict().items()}
    spare = {"head.weight": torch.zeros(2), "layers.0.blocks.0.attn.relative_position_index": torch.zeros(1)}
    back = from_swin(to_original(state) | spare)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) for k in state)


def pvt_of(state: StateDict) -> StateDict:
    """Return a PVTv2-B1 file with these weights in its own names."""
    found = {"head.weight": torch.zeros(2)}
    for key, value in state.items():
        if key == "msg_tokens":
            continue
        _, stage, part, *rest = key.split(".")
        number = int(stage) + 1
        if part == "0":
            found[f"patch_embed{number}.{'.'.join(rest).replace('projection', 'proj')}"] = value
        elif part == "2":
            found[f"norm{number}.{rest[0]}"] = value
        else:
            prefix, name = f"block{number}.{rest[0]}.", ".".join(rest[1:])
            if "in_proj" in name:
                kind, third = name.rsplit("_", 1)[1], len(value) // 3
                found |= {f"{prefix}attn.q.{kind}": value[:third], f"{prefix}attn.kv.{kind}": value[third:]}
                continue
            for ours, theirs in (("attn.attn.out_proj", "attn.proj"), ("ffn.layers.0", "mlp.fc1"),
                                 ("ffn.layers.1", "mlp.dwconv.dwconv"), ("ffn.layers.4", "mlp.fc2")):  # fmt: skip
                name = name.replace(ours, theirs)
            flat = value.ndim == 4 and "mlp.fc" in name
            found[prefix + name] = value[..., 0, 0] if flat else value
    return found


def test_imagenet_weights_of_the_messenger_backbone(tmp_path: Path):
    model = create_model("tevit", "msgshift", num_classes=2, num_stages=1, **SMALL)
    own = model.get_submodule("backbone").state_dict()
    state = {k: torch.randn(v.shape) for k, v in own.items()}
    torch.save(pvt_of(state), tmp_path / "pvt_v2_b1.pth")
    messengers = own["msg_tokens"].clone()
    load_backbone(model, tmp_path / "pvt_v2_b1.pth")
    loaded = model.get_submodule("backbone").state_dict()
    assert torch.equal(loaded.pop("msg_tokens"), messengers)
    assert all(torch.equal(loaded[k], state[k]) for k in loaded)
    torch.save({k: v for k, v in pvt_of(state).items() if "block2.1.norm1.bias" not in k}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="pvt_v2_b1"):
        load_backbone(model, tmp_path / "cut.pth")


def test_queryinst_gives_all_but_classes_and_messengers():
    """Trained on 80 classes without messengers; what does not fit keeps its fresh weights."""
    coco = create_model("tevit", "msgshift", num_classes=80, num_stages=6, **SMALL).state_dict()
    coco = {k: torch.full_like(v, 0.5) for k, v in coco.items() if k != "backbone.msg_tokens"}
    model = create_model("tevit", "msgshift", num_classes=7, num_stages=6, **SMALL)
    report = load_queryinst(model, coco, where="queryinst.pth")
    assert report.missing == ("backbone.msg_tokens",)
    assert not report.unexpected
    assert len(report.misshapen) == 24
    assert all(".fc_cls." in k or ".conv_logits." in k for k in report.misshapen)
    assert (model.get_parameter("roi_head.bbox_head.5.fc_reg.weight") == 0.5).all()
    assert not (model.get_parameter("roi_head.bbox_head.5.fc_cls.weight") == 0.5).any()


def test_queryinst_of_another_backbone_is_refused(shared: Path):
    model = create_model("tevit", "msgshift", num_classes=7, **SMALL)
    with pytest.raises(CheckpointError, match="pvt_v2_b1"):
        load_queryinst(model, official(shared, "keys_r50.json"), where="queryinst_r50.pth")


def test_no_weights_for_the_small_backbone():
    with pytest.raises(ConfigError, match="pvt_small"):
        load_backbone(create_model("tevit", "tiny", num_classes=1), None)


def heads(classes: int, *backbone: str) -> StateDict:
    """Return tensors as a TeViT and a QueryInst name them; the six stages have one classifier each."""
    state = {f"roi_head.bbox_head.{stage}.fc_cls.weight": torch.zeros(classes, 256) for stage in range(6)}
    state |= {"rpn_head.init_proposal_features.weight": torch.zeros(100, 256)}
    return state | {f"backbone.{name}": torch.zeros(1) for name in backbone}


RESNET, PVT = ("conv1.weight",), ("layers.0.0.projection.weight",)
SWIN, SWIN_OF_ITS_AUTHORS = ("patch_embed.projection.weight",), ("patch_embed.proj.weight",)
NAMED = {"meta": {"mmdet_version": "2.12.0", "config": "model = dict(\n    type='QueryInst',\n"}}


@pytest.mark.parametrize(
    ("state", "notes", "reason"),
    [
        (heads(80, *RESNET), {}, "80 classes, as many as in COCO.* pass method tevit"),
        (heads(40, *RESNET), NAMED, "as its configuration says"),
        (heads(40, *RESNET), {"meta": {"cfg": "model = dict(type='QueryInst')"}}, "as its configuration says"),
        (heads(80, *SWIN), {}, "80 classes"),
        (heads(40, *SWIN_OF_ITS_AUTHORS), {}, "name a Swin Transformer as its authors do"),
        (heads(40, *PVT), {}, "no backbone.msg_tokens"),
        (heads(80, *PVT), NAMED, "as its configuration says"),
    ],
)
def test_a_queryinst_is_not_taken_for_a_tevit(tmp_path: Path, state: StateDict, notes: Any, reason: str):
    torch.save({"state_dict": state} | notes, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=f"a.pth is not a checkpoint of tevit.*a QueryInst.*{reason}"):
        convert_checkpoint(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="set pretrained"):
        convert_checkpoint({"state_dict": state} | notes)


@pytest.mark.parametrize(
    ("classes", "notes", "method"),
    [
        (80, {}, "tevit"),
        (80, {"meta": {"config": "model = dict(type='TeViT')  # from queryinst_r50.pth"}}, None),
        (40, {"meta": {"config": "model = dict(type='TeViT')"}}, None),
        (40, {"meta": {"config": ["no text"]}}, None),
        (40, {"meta": "nothing"}, None),
    ],
)
def test_a_tevit_without_messengers(classes: int, notes: Any, method: str | None):
    found = convert_checkpoint({"state_dict": heads(classes, *RESNET)} | notes, method=method)
    assert (found.method, found.variant, len(found.classes)) == ("tevit", "r50", classes)


def test_what_nothing_tells_apart_is_announced(caplog: pytest.LogCaptureFixture):
    convert_checkpoint({"state_dict": heads(40, *RESNET)}, classes="ytvis2019")
    assert "has the names of a QueryInst" in caplog.text
    caplog.clear()
    convert_checkpoint({"state_dict": heads(40, *RESNET)}, classes="ytvis2019", method="tevit")
    convert_checkpoint({"state_dict": heads(40, *PVT, "msg_tokens")}, classes="ytvis2019")
    assert not caplog.records
