"""Weight files as trainers write them, and as damage or malice leaves them."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import os
import pathlib
import pickle
import struct
import types
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from visdeploy.errors import CheckpointError
from visdeploy_training import convert_checkpoint, create_model, save_checkpoint
from visdeploy_training.checkpoint_file import from_object, read_tensors
from visdeploy_training.stand_ins import ALLOWED

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] = STATE) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], v) for k, v in expected.items())


BESIDE = {
    "arguments": argparse.Namespace(lr=2e-4, device="cuda", deep=argparse.Namespace(a=[1, (2,)])),
    "simple arguments": types.SimpleNamespace(lr=2e-4),
    "float": np.float64(0.31),
    "integer": np.int32(3),
    "boolean": np.bool_(True),
    "text": np.str_("best"),
    "array": np.arange(6.0).reshape(2, 3).T,
    "array of objects": np.array([{}, None], dtype=object),
    "types": [np.dtype("float32"), np.dtype(">i4")],
    "defaultdict": collections.defaultdict(list, a=[1]),
    "nested defaultdict": collections.defaultdict(dict, a=collections.defaultdict(int, b=2)),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1.5, 2.5], maxlen=3),
    "path": pathlib.Path("out") / "runs",
    "time": [datetime.datetime(2024, 5, 6, 7), datetime.timedelta(days=1), datetime.date(2024, 5, 6)],
    "range, slice and sets": [range(3), slice(1, 2), {1}, frozenset({2})],
    "version": torch.torch_version.TorchVersion("2.1.0"),
    "numbers of other kinds": [decimal.Decimal("0.1"), fractions.Fraction(1, 3), 1j, bytearray(b"x"), b"y"],
    "state of a generator": np.random.RandomState(1),
}


@pytest.mark.parametrize("name", BESIDE)
def test_harmless_objects_beside_the_weights(tmp_path, name):
    torch.save({"model": STATE, "epoch": 17, "beside": BESIDE[name]}, tmp_path / "a.pth")
    assert same(read_tensors(tmp_path / "a.pth").tensors)
    torch.save({"model": STATE, "beside": BESIDE[name]}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert same(read_tensors(tmp_path / "b.pth").tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol(tmp_path, protocol, zipped):
    """PyTorch's own safe reader knows protocol 2 only."""
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    parameters = {k: torch.nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in STATE.items()}
    torch.save({"model": parameters, "beside": list(BESIDE.values())}, tmp_path / "a.pth", **options)
    assert same(read_tensors(tmp_path / "a.pth").tensors)
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in STATE.items()}}, protocol))
    assert same(read_tensors(tmp_path / "b.pkl").tensors)
    weight = np.asfortranarray(STATE["a.weight"].numpy()).astype(">f4")
    turned = {"a.weight": weight, "a.count": np.array(3)}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(turned, protocol))
    assert same(read_tensors(tmp_path / "c.pkl").tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_no_protocol_runs_code(tmp_path, monkeypatch, protocol, zipped):
    class Code:
        def __reduce__(self):
            return os.mkdir, ("executed",)

    monkeypatch.chdir(tmp_path)
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save({"model": STATE, "args": Code()}, "a.pth", **options)
    with pytest.raises(CheckpointError, match="more than tensors and plain data"):
        read_tensors("a.pth")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_changes_no_class(tmp_path):
    """The opcode for attributes would otherwise change a stand-in for all files that follow."""
    opcodes = b"\x80\x02cbuiltins\nlist\nN}X\x05\x00\x00\x00extraK\x01s\x86b."
    (tmp_path / "a.pkl").write_bytes(opcodes)
    with pytest.raises(CheckpointError, match="attributes"):
        read_tensors(tmp_path / "a.pkl")
    assert not hasattr(ALLOWED["builtins.list"], "extra")


@pytest.mark.parametrize("stored", [1, 1000])
def test_views_that_repeat_their_storage_without_end(tmp_path, stored):
    torch.save({"model": STATE | {"a.more": torch.zeros(stored, 1).expand(-1, 10**12)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"'a\.more'.*repeated"):
        read_tensors(tmp_path / "a.pth")
    torch.save({"model": STATE | {"a.more": torch.zeros(stored, 1).expand(-1, 8)}}, tmp_path / "b.pth")
    assert read_tensors(tmp_path / "b.pth").tensors["a.more"].shape == (stored, 8)


@pytest.mark.parametrize(
    "data",
    [{"ema": {"module": STATE, "updates": 10}}, {"model": None, "ema": {"module": STATE}}, {"params": STATE},
     {"state_dict": {"model": STATE}}, {"checkpoint": {"state_dict": STATE}}, {"net": STATE, "acc": 93.2, "epoch": 4}],
)  # fmt: skip
def test_dictionaries_around_the_weights(data):
    assert same(from_object(data).tensors)


@pytest.mark.parametrize("path", [5, None, ["a.pth"], b"a.pth", "", "a\0b", "a" * 5000, torch.nn.Identity()])
def test_what_is_no_path(path):
    for read in (read_tensors, convert_checkpoint):
        with pytest.raises(CheckpointError, match=r"path of a checkpoint|no such checkpoint"):
            read(path)


def test_the_names_of_older_numpy_versions(tmp_path):
    torch.save({"model": STATE, "best": np.float32(0.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for record in new.namelist():
            data = new.read(record)
            assert not record.endswith("data.pkl") or b"numpy._core" in data or b"numpy.core" in data
            old.writestr(record.replace("new/", "old/"), data.replace(b"numpy._core.", b"numpy.core."))
    assert same(read_tensors(tmp_path / "old.pth").tensors)


def test_arrays_as_weights(tmp_path):
    arrays = {"c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "n": np.array(2)}
    expected = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    torch.save({"model": arrays}, tmp_path / "a.pth")
    assert same(read_tensors(tmp_path / "a.pth").tensors, expected)
    for protocol in (2, 4):  # detectron2's model zoo
        data = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(data, protocol))
        assert same(read_tensors(tmp_path / "a.pkl").tensors, expected)


class Code:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value", [Code(os.mkdir, "executed"), Code(eval, "1"), Code(getattr, [], "append"), Colour.RED]
)
def test_anything_else_is_refused_without_running_it(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": STATE, "args": argparse.Namespace(value=value)}, "a.pth")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(2)}, "value": value}))
    for name in ("a.pth", "b.pkl"):
        with pytest.raises(CheckpointError, match="contains more than tensors and plain data"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_the_allow_list_is_not_left_behind(tmp_path):
    torch.save({"model": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    read_tensors(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    "data",
    [{"model_ema": STATE, "epoch": 1}, {"state_dict_ema": STATE}, {"model": STATE, "model_ema": {"b": torch.ones(1)}}],
)
def test_averaged_weights_are_read_where_there_are_no_others(data):
    assert same(from_object(data).tensors)


def test_a_pickle_called_safetensors(tmp_path):
    for new in (True, False):
        torch.save({"model": STATE}, tmp_path / "a.SafeTensors", _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError, match=r"is not a safetensors file.*a torch file.*Rename it to \.pth"):
            convert_checkpoint(tmp_path / "a.SafeTensors")
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        convert_checkpoint(tmp_path / "b.safetensors")


def test_a_flipped_bit_in_the_weights(tmp_path):
    path, weight = tmp_path / "a.pth", torch.full((1000,), 1.5)
    torch.save({"state_dict": {"a": weight}}, path)
    good = path.read_bytes()
    start = good.index(struct.pack("<f", 1.5) * 1000)
    for place in (start, start + 2003, start + 3999):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :])
        with pytest.raises(CheckpointError, match=r"is damaged.*'a/data/0' does not have the checksum \(CRC-32\)"):
            read_tensors(path)
    path.write_bytes(good)
    assert torch.equal(read_tensors(path).tensors["a"], weight)


def test_a_file_without_checksums_is_read_with_a_warning(tmp_path, caplog):
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save({"model": STATE}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert same(read_tensors(tmp_path / "a.pth").tensors)
    assert "has no checksums" in caplog.text


def test_an_archive_that_expands_is_refused_before_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    with pytest.raises(CheckpointError, match="expand to more than 100 times"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.zeros(2, dtype=torch.complex64), "complex64"),
        (lambda: torch.zeros(2, dtype=torch.complex128), "complex128"),
        (lambda: torch.zeros(2, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda: torch.zeros(2, dtype=torch.uint16), "uint16"),
        (lambda: torch.ones(2, 2).to_sparse(), "sparse_coo float32"),
        (lambda: torch.ones(2, 2).to_sparse_csr(), "sparse_csr float32"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "qint8"),
        (lambda: torch.zeros(2, device="meta"), "float32 without values"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested float32"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_named(tmp_path, make, kind):
    tensor = make()
    with pytest.raises(CheckpointError, match=f"tensor 'odd' is of a kind that no network here has.*seen: {kind}"):
        from_object({"model": STATE | {"odd": tensor}})
    if kind in ("complex64", "float8_e4m3fn", "uint16"):
        save_file(STATE | {"odd": tensor}, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match="tensor 'odd' is of a kind"):
            read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("data", [{"model": {"a": np.float64(1)}}, {"model": {"a": np.array("text")}}, {("a",): 1}])
def test_values_that_are_no_arrays_of_numbers(data):
    with pytest.raises(CheckpointError, match="contains no state dict"):
        from_object(data)


def test_one_bit_of_our_own_files_is_noticed(tmp_path):
    path = save_checkpoint(create_model("visolo", "tiny", classes=("a", "b")), tmp_path / "a.safetensors")
    whole = path.read_bytes()
    assert read_tensors(path).metadata["sha256"]
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in (whole.index(b'"visolo') + 2, start, (start + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="damaged, or was edited"):
            read_tensors(path)
