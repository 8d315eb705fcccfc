import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training import (
    Checkpoint,
    VISModel,
    convert_checkpoint,
    create_model,
    get_method,
    load_checkpoint,
    save_checkpoint,
    start_from,
)
from visdeploy_training.checkpoint import match_keys
from visdeploy_training.checkpoint_file import METADATA_KEY, read_tensors
from visdeploy_training.checkpoint_info import metadata
from visdeploy_training.methods import METHODS

SMALL = {"grid": (4, 6), "head_width": 16, "mask_width": 16, "track_dim": 16, "neck_width": 16}
StateDict = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model() -> VISModel:
    torch.manual_seed(0)
    return create_model("visolo", "tiny", classes=["cat", "dog", "owl"], **SMALL).eval()


@pytest.fixture(scope="module")
def official_state() -> StateDict:
    """Return an official-layout state dict, duplicates included."""
    state = {f"model.{k}": v for k, v in create_model("visolo", "r50", num_classes=7).state_dict().items()}
    branch = "model.Tracking_branch."
    return state | {"tracking_module." + k.removeprefix(branch): v for k, v in state.items() if k.startswith(branch)}


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("wrapped", ["model", "state_dict", "bare", "module"])
def test_official_layouts_are_recognised(tmp_path: Path, official_state: StateDict, wrapped: str):
    data: Any = {"model": official_state, "optimizer": {"state": {}}, "iteration": 3}
    if wrapped == "state_dict":
        data = {"state_dict": official_state}
    elif wrapped == "bare":
        data = official_state
    elif wrapped == "module":
        data = {"model": {f"module.{k}": v for k, v in official_state.items()}}
    torch.save(data, tmp_path / "model_final.pth")
    found = convert_checkpoint(tmp_path / "model_final.pth")
    assert (found.method, found.variant, len(found.classes), found.layout) == ("visolo", "r50", 7, "official")
    assert (found.report.missing, found.report.unexpected, found.report.misshapen) == ((), (), ())
    assert len(found.report.loaded) == 333
    key = "Tracking_branch.track_Q_conv1.weight"
    assert torch.equal(found.build().state_dict()[key], official_state[f"model.{key}"])


def test_official_safetensors_and_names(tmp_path: Path, official_state: StateDict):
    save_file({k: v.clone() for k, v in official_state.items()}, tmp_path / "official.safetensors")
    found = convert_checkpoint(tmp_path / "official.safetensors", classes=list("abcdefg"))
    assert found.classes == tuple("abcdefg")
    saved = save_checkpoint(found, tmp_path / "ours.safetensors")
    again = convert_checkpoint(saved)
    assert (again.layout, again.classes) == ("visdeploy", tuple("abcdefg"))
    assert same(again.state, found.state)


def test_class_names_that_are_made_up_are_announced(official_state: StateDict, caplog: pytest.LogCaptureFixture):
    count = len(convert_checkpoint(official_state).info.classes)
    assert f"no class names: its {count} classes are called class_0 to class_{count - 1}" in caplog.text
    caplog.clear()
    convert_checkpoint(official_state, classes=[f"kind {i}" for i in range(count)])
    assert not caplog.records


def test_class_names_remain_made_up_in_our_own_files(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    save_checkpoint(create_model("visolo", "tiny", num_classes=2, **SMALL), tmp_path / "a.safetensors")
    assert convert_checkpoint(tmp_path / "a.safetensors").classes == ("class_0", "class_1")
    assert "no class names: its 2 classes are called class_0 to class_1" in caplog.text


def test_every_wrong_key_is_reported(official_state: StateDict):
    state = dict(official_state)
    del state["model.Memory_module.conv1.bias"]
    state["model.extra"] = torch.zeros(1)
    state["model.Mask_branch.pred.weight"] = torch.zeros(2, 2)
    found = convert_checkpoint(state)
    assert found.report.missing == ("Memory_module.conv1.bias",)
    assert found.report.unexpected == ("extra",)
    assert found.report.misshapen == ("Mask_branch.pred.weight (seen (2, 2), expected (256, 256, 1, 1))",)
    assert len(found.report.loaded) == 331
    for action in (found.build, found.report.raise_on_problem, lambda: save_checkpoint(found, "never.safetensors")):
        with pytest.raises(CheckpointError, match=r"1 missing.*Memory_module.conv1.bias.*1 unexpected.*1 misshapen"):
            action()
    assert not Path("never.safetensors").exists()


def test_round_trip_of_our_own(tmp_path: Path, model: VISModel):
    path = save_checkpoint(model, tmp_path / "new" / "tiny.safetensors", notes={"trained on": "nothing"})
    assert [p.name for p in path.parent.iterdir()] == ["tiny.safetensors"]
    loaded, info = load_checkpoint(path)
    assert info == model.info
    assert loaded.config == model.config
    assert not loaded.training
    assert same(loaded.state_dict(), model.state_dict())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["visdeploy"])["notes"] == {"trained on": "nothing"}


def test_lightning_checkpoint(tmp_path: Path, model: VISModel):
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    data = {"state_dict": state, "visdeploy": metadata(model.info), "epoch": 3, "optimizer_states": [{"lr": 0.1}]}
    torch.save(data, tmp_path / "last.ckpt")
    loaded, info = load_checkpoint(tmp_path / "last.ckpt")
    assert info.classes == ("cat", "dog", "owl")
    assert same(loaded.state_dict(), model.state_dict())


def test_bare_state_dict_needs_method_and_variant(model: VISModel):
    with pytest.raises(CheckpointError, match="unknown layout"):
        convert_checkpoint(model.state_dict())
    found = convert_checkpoint(
        create_model("visolo", "tiny", num_classes=2).state_dict(), method="visolo", variant="tiny"
    )
    assert found.layout == "bare"
    assert found.report.ok


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def write_truncated(path: Path, state: StateDict) -> None:
    torch.save({"model": state}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_truncated_safetensors(path: Path, state: StateDict) -> None:
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def with_metadata(text: str) -> Callable[[Path, StateDict], None]:
    return lambda path, state: save_file({"a": torch.zeros(1)}, path, {"visdeploy": text})


OURS = {"format": 1, "method": "visolo", "variant": "tiny", "overrides": {}, "classes": ["a"]}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p, s: None, "no such checkpoint"),
        (lambda p, s: p.mkdir(), "no such checkpoint"),
        (lambda p, s: p.write_bytes(b""), "not a checkpoint"),
        (lambda p, s: p.write_bytes(bytes(range(256)) * 4), "not a checkpoint"),
        (lambda p, s: p.write_bytes(b"PK" + bytes(300)), "damaged"),
        (lambda p, s: p.write_bytes(b"\x80" + bytes(range(1, 200))), "damaged"),
        (write_truncated, "damaged"),
        (write_truncated_safetensors, "damaged"),
        (lambda p, s: torch.save({"model": Code()}, p), "could run code"),
        (lambda p, s: p.write_bytes(pickle.dumps(Code())), "could run code"),
        (lambda p, s: torch.save([1, 2], p), "no state dict"),
        (lambda p, s: torch.save({}, p), "no state dict"),
        (lambda p, s: torch.save({"model": {"a": "text"}}, p), "no state dict"),
        (lambda p, s: torch.save({"a": torch.zeros(1)}, p), "unknown layout"),
        (with_metadata("{"), "not valid JSON"),
        (with_metadata("[]"), "malformed"),
        (with_metadata("{}"), "unknown layout"),
        (with_metadata('{"format": 1}'), "malformed"),
        (with_metadata(json.dumps(OURS | {"format": 2})), "newer format"),
        (with_metadata(json.dumps(OURS | {"overrides": {"depth": 3}})), "cannot create"),
        (with_metadata(json.dumps(OURS | {"classes": ["a", "a"]})), "cannot create"),
        (with_metadata('{"format":' + "[" * 100_000), "not valid JSON"),
        (with_metadata(json.dumps(OURS | {"format": "1"})), "malformed.*format: '1'.*a whole number"),
        (with_metadata(json.dumps(OURS | {"format": None})), "malformed.*format: None.*a whole number"),
        (with_metadata(json.dumps(OURS | {"method": ["visolo"]})), "malformed.*method: list.*a text"),
        (with_metadata(json.dumps(OURS | {"variant": 3})), "malformed.*variant: 3.*a text"),
        (with_metadata(json.dumps(OURS | {"classes": "abc"})), "malformed.*classes: 'abc'.*a list of texts"),
        (with_metadata(json.dumps(OURS | {"classes": [["a"]]})), "malformed.*classes: list.*a list of texts"),
        (with_metadata(json.dumps(OURS | {"overrides": []})), "malformed.*overrides: list"),
        (with_metadata(json.dumps(OURS | {"overrides": {"grid": [[1], 2]}})), "malformed.*overrides: dict"),
        (with_metadata(json.dumps(OURS | {"overrides": {"freeze_at": "x"}})), "cannot create.*freeze_at"),
        (with_metadata(json.dumps(OURS | {"overrides": {"freeze_at": -1}})), "cannot create.*freeze_at.*at least 0"),
        (with_metadata(json.dumps(OURS | {"overrides": {"score_threshold": "x"}})), "cannot create.*score_threshold"),
        (with_metadata(json.dumps(OURS | {"overrides": {"memory_slots": 10**9}})), "memory_slots.*at most"),
        (with_metadata(json.dumps(OURS | {"overrides": {"memory_slots": 2000}})), "memory_slots.*at most 1024"),
        (with_metadata(json.dumps(OURS | {"overrides": {"head_width": 10**9}})), "head_width.*at most 1048576"),
        (with_metadata(json.dumps(OURS | {"overrides": {"head_width": 10**400}})), "head_width.*at most 1048576"),
        (with_metadata(json.dumps(OURS | {"overrides": {"num_groups": 0}})), "num_groups.*at least 1"),
        (with_metadata(json.dumps(OURS | {"overrides": {"grid": [10**9, 1]}})), "grid.*at most"),
        (with_metadata(json.dumps(OURS | {"overrides": {"grid": [300, 1]}})), "grid.*two numbers from 1 to 256"),
        (with_metadata(json.dumps(OURS | {"overrides": {"num_classes": 3}})), "cannot create.*num_classes"),
    ],
)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, message: str):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bad.pth", {"w": torch.zeros(300, 300)})
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, official_state: StateDict, value: float):
    state = dict(official_state)
    state["model.Memory_module.conv1.bias"] = torch.full((256,), value)
    with pytest.raises(CheckpointError, match=r"NaN or infinite.*1 of 333 tensors, first Memory_module.conv1.bias"):
        convert_checkpoint(state)
    broken = create_model("visolo", "tiny", num_classes=2, **SMALL)
    with torch.no_grad():
        broken.Memory_module.conv1.bias.fill_(value)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        save_checkpoint(broken, tmp_path / "broken.safetensors")
    assert not list(tmp_path.iterdir())


def test_wrong_method_variant_or_class_count(tmp_path: Path, model: VISModel, official_state: StateDict):
    with pytest.raises(CheckpointError, match=r"wrong number of classes.*7 in the checkpoint.*40"):
        convert_checkpoint(official_state, classes=[str(i) for i in range(40)])
    path = save_checkpoint(model, tmp_path / "tiny.safetensors")
    with pytest.raises(CheckpointError, match="another variant"):
        convert_checkpoint(path, variant="r50")
    with pytest.raises(ConfigError, match="unknown method"):
        convert_checkpoint(official_state, method="none_such")
    with pytest.raises(CheckpointError, match="cannot create"):
        convert_checkpoint(official_state, variant="huge")
    assert not convert_checkpoint(official_state, variant="tiny").report.ok


def test_saved_class_count_and_tensor_disagree(tmp_path: Path, model: VISModel):
    data = {"state_dict": model.state_dict(), "visdeploy": metadata(model.info) | {"classes": ["cat", "dog"]}}
    torch.save(data, tmp_path / "wrong.ckpt")
    with pytest.raises(CheckpointError, match=r"2 misshapen.*Category_branch_post.pred.weight.*\(3, .*\(2, "):
        load_checkpoint(tmp_path / "wrong.ckpt")


def test_failed_save_leaves_the_old_file(tmp_path: Path, model: VISModel, monkeypatch: pytest.MonkeyPatch):
    path = save_checkpoint(model, tmp_path / "tiny.safetensors")
    before = path.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_fine_tuning_keeps_only_the_class_predictor_fresh(model: VISModel):
    source = Checkpoint(model.state_dict(), model.info, convert_of(model).report, "visdeploy")
    target = create_model("visolo", "tiny", num_classes=8, **SMALL)
    fresh = target.Category_branch_post.pred.weight.clone()
    report = start_from(target, source)
    assert len(report.misshapen) == 2
    state = target.state_dict()
    assert torch.equal(state["Category_branch_post.pred.weight"], fresh)
    assert all(
        torch.equal(state[k], v) for k, v in model.state_dict().items() if ".pred." not in k or "Category" not in k
    )
    other = create_model("visolo", "tiny", num_classes=8, **(SMALL | {"track_dim": 32}))
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="track_Q_conv2"):
        start_from(other, source)
    assert same(other.state_dict(), before)


def test_fine_tuning_starts_parts_of_another_stage_afresh(model: VISModel, monkeypatch: pytest.MonkeyPatch):
    branch, head = "Tracking_branch.", "old_head."
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(branch)} | {head + "bias": torch.ones(3)}
    source = Checkpoint(state, model.info, convert_of(model).report, "visdeploy")
    target = create_model("visolo", "tiny", num_classes=3, **SMALL)
    with pytest.raises(CheckpointError, match=r"missing, first Tracking_branch.*unexpected, first old_head"):
        start_from(target, source)
    for stages in ((branch,), (head,)):
        own = replace(get_method("visolo"), stage_tensors=stages)
        monkeypatch.setitem(METHODS, "visolo", lambda own=own: own)
        with pytest.raises(CheckpointError, match="missing" if stages == (head,) else "unexpected"):
            start_from(target, source)
    own = replace(get_method("visolo"), stage_tensors=(branch, head))
    monkeypatch.setitem(METHODS, "visolo", lambda: own)
    fresh = {k: v.clone() for k, v in target.state_dict().items() if k.startswith(branch)}
    start_from(target, source)
    assert same(target.state_dict(), {k: fresh.get(k, v) for k, v in model.state_dict().items()})


def convert_of(model: VISModel) -> Checkpoint:
    return convert_checkpoint({"state_dict": model.state_dict(), "visdeploy": metadata(model.info)})


def laughs(kind: Callable[[Any], Any]) -> Any:
    """Return a value whose text has 2^40 items."""
    value: Any = "ha"
    for _ in range(40):
        value = kind([value, value])
    return value


@pytest.mark.parametrize("field", ["format", "method", "variant", "classes", "overrides", "notes", "an override"])
@pytest.mark.parametrize("kind", [list, tuple, lambda pair: dict(enumerate(pair))])
def test_nested_metadata_takes_bounded_time(field: str, kind: Any):
    value = laughs(kind)
    changed = {"overrides": {"grid": value}} if field == "an override" else {field: value}
    data = {"state_dict": {"a": torch.zeros(1)}, "visdeploy": OURS | changed}
    if field == "notes":
        assert not convert_checkpoint(data).report.ok
        return
    with pytest.raises(CheckpointError, match="metadata is malformed"):
        convert_checkpoint(data)


def test_nested_values_elsewhere_take_bounded_time():
    for data in (
        {"model": {"a": laughs(list)}},
        {"model": laughs(list)},
        {"a": laughs(list)},
        {"visdeploy": laughs(list)},
    ):
        with pytest.raises(CheckpointError):
            convert_checkpoint(data)
    with pytest.raises(ConfigError, match="grid has a wrong value"):
        create_model("visolo", "tiny", grid=laughs(list))


def test_numbers_of_another_type_are_refused(model: VISModel):
    data = {"state_dict": model.state_dict(), "visdeploy": metadata(model.info)}
    key, other = "Category_branch_post.pred.weight", "Tracking_branch.track_Q_conv1.weight"
    data["state_dict"] = model.state_dict() | {key: torch.zeros(model.state_dict()[key].shape, dtype=torch.int8)}
    with pytest.raises(
        CheckpointError, match=f"tensor '{key}' .* another type of numbers.*seen: int8; expected: float32"
    ):
        convert_checkpoint(data)
    huge = torch.full(model.state_dict()[other].shape, 1e300, dtype=torch.float64)
    data["state_dict"] = model.state_dict() | {other: huge}
    with pytest.raises(CheckpointError, match=rf"values that no trained network has.*1e\+300 in {other}"):
        convert_checkpoint(data)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_flipped_exponent_is_noticed_without_a_checksum(model: VISModel, tmp_path, zipped):
    key = "Tracking_branch.track_Q_conv1.weight"
    state = {k: v.clone() for k, v in model.state_dict().items()}
    bits = state[key].view(torch.int32).view(-1)
    bits[3] ^= 1 << 30
    if zipped:
        save_file(state, tmp_path / "a.safetensors", {"visdeploy": json.dumps(metadata(model.info))})
    else:
        torch.save({"model": state}, tmp_path / "a.safetensors.pth", _use_new_zipfile_serialization=False)
    (file,) = tmp_path.iterdir()
    with pytest.raises(CheckpointError, match=f"no trained network has.*{key}"):
        convert_checkpoint(file, method="visolo", variant=model.info.variant)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("prefix", ["model.module.", "_forward_module.model.", "ema_model.", "net.", "model.model."])
def test_names_of_modules_around_the_network(model: VISModel, own, prefix):
    data: dict = {"state_dict": {prefix + k: v for k, v in model.state_dict().items()}}
    if own:
        data["visdeploy"] = metadata(model.info)
    found = convert_checkpoint(data, method="visolo", variant=model.info.variant)
    assert found.report.missing == found.report.unexpected == ()
    assert found.report.ok or not own
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in found.state.items())


@pytest.mark.parametrize("name", ["method", "variant", "classes"])
@pytest.mark.parametrize("value", [5, 1.5, [5], {"a": []}, [["a"]], b"x", True, "x" * 9999])
def test_arguments_of_wrong_types(model: VISModel, name, value):
    if name == "classes" and isinstance(value, dict):
        value = {5: "a"}
    given = {"method": "visolo", "variant": model.info.variant, name: value}
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        convert_checkpoint({"model": model.state_dict()}, **given)
    assert len(str(caught.value)) < 1500


def test_counters_in_floating_point_are_read():
    expected = {"count": torch.tensor(0)}
    assert match_keys(expected, {"count": torch.tensor(7.0)})[0]["count"].dtype == torch.int64
    with pytest.raises(CheckpointError, match="seen: float32; expected: int64"):
        match_keys(expected, {"count": torch.tensor(7.5)})


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_a_header_of_any_length_is_told_from_a_pickle(tmp_path, padding):
    """The first byte of a safetensors file is part of a length: 0x80 there is no pickle."""
    path = tmp_path / "some.safetensors"
    save_file({"a": torch.ones(2)}, path, {METADATA_KEY: json.dumps({"note": "x" * padding})})
    assert read_tensors(path).metadata == {"note": "x" * padding}
