"""Weight files: damaged, of other shapes and types, with other things in them, and good ones of every trainer."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.campaigns.damage import ODD_VALUES, Rng, change_json, damage_file
from tests.campaigns.trials import Trial
from visdeploy_training import Checkpoint, convert_checkpoint, create_model, save_checkpoint
from visdeploy_training.checkpoint_info import metadata

State = dict[str, Tensor]
OPTIONS = {"height": 96, "width": 160, "memory_slots": 4}
CLASSES = ("cat", "dog", "owl")


class Code:
    """Object whose pickle runs a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


class Checkpoints:
    """Kind `checkpoints`: read and built, compared with the weights that were written."""

    name, count = "checkpoints", 440

    def prepare(self, folder: Path) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(5)
        model = create_model("visolo", "tiny", classes=CLASSES, **OPTIONS)
        self.state: State = {k: v.clone() for k, v in model.state_dict().items()}
        self.metadata = metadata(model.info)
        self.ours = folder / "ours.safetensors"
        save_checkpoint(model, self.ours)
        self.text = json.dumps(self.metadata)
        self.makers = (*_damages(self), *(lambda r, f, m=maker: m(self, r, f) for maker in MAKERS))

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        path, label, good, tolerance = self.makers[number % len(self.makers)](rng, folder)

        def load() -> Checkpoint:
            found = convert_checkpoint(path, method="visolo", variant="tiny", classes=list(CLASSES))
            found.build()
            return found

        return Trial(label, load, lambda found: self._compare(found, tolerance), (path,), good)

    def _compare(self, found: Checkpoint, tolerance: float) -> str:
        for name, expected in self.state.items():
            if not torch.allclose(found.state[name].double(), expected.double(), rtol=tolerance, atol=tolerance):
                return f"{name} has other values"
        return ""


Made = tuple[Path, str, bool, float]


def _damages(kind: Checkpoints) -> tuple[Callable[[Rng, Path], Made], ...]:
    """Return makers of damaged files: ours, and both kinds of torch files."""

    def damaged(write: Callable[[Path], Path], number: int) -> Callable[[Rng, Path], Made]:
        def make(rng: Rng, folder: Path) -> Made:
            path = write(folder)
            return path, f"{path.name}: {damage_file(path, number, rng)}", False, 0.0

        return make

    def ours(folder: Path) -> Path:
        path = folder / "a.safetensors"
        path.write_bytes(kind.ours.read_bytes())
        return path

    def zipped(folder: Path) -> Path:
        torch.save({"model": kind.state, "epoch": 3}, folder / "a.pth")
        return folder / "a.pth"

    def lightning(folder: Path) -> Path:
        state = {f"model.{k}": v for k, v in kind.state.items()}
        torch.save({"state_dict": state, "visdeploy": kind.metadata, "global_step": 1}, folder / "a.ckpt")
        return folder / "a.ckpt"

    return tuple(damaged(write, n) for write in (ours, zipped, lightning) for n in range(10))


def _torch(
    folder: Path, data: Any, label: str, *, good: bool, tolerance: float = 0.0, zipped: bool = True, protocol: int = 2
) -> Made:
    path = folder / "a.pth"
    torch.save(data, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path, label, good, tolerance


def _pick(state: Mapping[str, Tensor], rng: Rng, *, real: bool = True) -> str:
    names = [k for k, v in state.items() if v.is_floating_point() == real and v.numel() > 1]
    return names[int(rng.integers(len(names)))]


def prefixes(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Names of wrappers, as DistributedDataParallel, `torch.compile` and their like write them."""
    prefix = (
        *("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."),
        *("model.", "model.module.", "_forward_module.model.", "ema_model.", "net."),
    )[int(rng.integers(10))]
    return _torch(folder, {prefix + k: v for k, v in kind.state.items()}, f"names with {prefix}", good=True)


def containers(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """The weights inside a dictionary, with what trainers keep beside them."""
    keys = ("model", "state_dict", "model_state_dict", "module", "weights", "model_ema", "params", "checkpoint")
    key = keys[int(rng.integers(len(keys)))]
    beside = (
        argparse.Namespace(lr=1e-4, name="r50", nested=argparse.Namespace(a=[1, 2])),
        np.float64(0.5), collections.defaultdict(list, a=[1]), {"optimizer": {"state": {0: torch.zeros(3)}}},
        np.arange(5), None, [], {"a": (1, {2})}, collections.Counter("ab"), collections.OrderedDict(a=1),
    )[int(rng.integers(10))]  # fmt: skip
    weights = {"module": kind.state, "updates": 3} if rng.integers(4) == 0 else kind.state
    data = {key: weights, "beside": beside, "epoch": int(rng.integers(100))}
    protocol = int(rng.integers(2, 6))
    label = f"weights in {key!r}, protocol {protocol}"
    return _torch(folder, data, label, good=True, zipped=bool(rng.integers(2)), protocol=protocol)


def precisions(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Weights in another precision."""
    dtype, tolerance = ((torch.float16, 2e-3), (torch.bfloat16, 1e-2), (torch.float64, 0.0))[int(rng.integers(3))]
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in kind.state.items()}
    if rng.integers(2):
        return _torch(folder, {"model": state}, f"{dtype}", good=True, tolerance=tolerance)
    save_file(state, folder / "a.safetensors", {"visdeploy": kind.text})
    return folder / "a.safetensors", f"{dtype}", True, tolerance


def arrays(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """NumPy arrays in a pickle, as detectron2 writes them."""
    path = folder / "a.pkl"
    data = {"model": {k: v.numpy() for k, v in kind.state.items()}, "__author__": "someone"}
    path.write_bytes(pickle.dumps(data, protocol=int(rng.integers(2, 6))))
    return path, "arrays in a pickle", True, 0.0


def code(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """A pickle that would run something."""
    marker = str(folder / "executed")
    call = ((os.mkdir, marker), (os.system, f"touch {marker}"), (eval, "1"), (exec, f"open({marker!r}, 'w')"),
            (getattr, [], "append"), (print, "x"), (io.open, marker, "w"))[int(rng.integers(7))]  # fmt: skip
    data = {"model": kind.state, "args": Code(*call)}
    if not rng.integers(3):
        path = folder / "a.pkl"
        path.write_bytes(pickle.dumps({"model": {"a": np.zeros(2)}, "x": data["args"]}))
        return path, f"a pickle that calls {call[0].__name__}", False, 0.0
    protocol, zipped = int(rng.integers(2, 6)), bool(rng.integers(2))
    return _torch(folder, data, f"calls {call[0].__name__}", good=False, zipped=zipped, protocol=protocol)


def other_tensors(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """A tensor of a kind that no network has."""
    name = _pick(kind.state, rng)
    value = kind.state[name]
    choice = int(rng.integers(7))
    state: dict[str, Any] = dict(kind.state)
    state[name] = (
        lambda: value.to(torch.complex64),
        lambda: value.reshape(-1, value.shape[-1]).to_sparse(),
        lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        lambda: value.to("meta"),
        lambda: value.round().to(torch.int32),
        lambda: value.to(torch.float8_e4m3fn),
        lambda: [value.tolist()],
    )[choice]()
    return _torch(folder, {"model": state}, f"{name} of another kind ({choice})", good=False)


def other_values(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """NaN or infinity in one weight."""
    name = _pick(kind.state, rng)
    state = {**kind.state, name: kind.state[name].clone()}
    state[name].view(-1)[int(rng.integers(state[name].numel()))] = (float("nan"), float("inf"))[int(rng.integers(2))]
    return _torch(folder, {"model": state}, f"NaN or infinity in {name}", good=False)


def exponents(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """One flipped bit, in files without checksums, that makes a weight larger by orders of magnitude."""
    name = _pick(kind.state, rng)
    state = {**kind.state, name: kind.state[name].clone()}
    flat = state[name].view(-1)
    place = int(rng.integers(flat.numel()))
    flat[place] = 0.5
    flat.view(torch.int32)[place] ^= 1 << 30
    if rng.integers(2):
        return _torch(folder, {"model": state}, f"a flipped bit in {name}", good=False, zipped=False)
    save_file(state, folder / "a.safetensors", {"visdeploy": kind.text})
    return folder / "a.safetensors", f"a flipped bit in {name}", False, 0.0


def views(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Views: of one storage for all weights, transposed, or repeated without end."""
    choice, zipped = int(rng.integers(3)), bool(rng.integers(2))
    state: State = dict(kind.state)
    if choice == 0:
        state = {k: v.reshape(-1).repeat(2)[: v.numel()].view(v.shape) for k, v in state.items()}
    elif choice == 1:
        state = {k: v.transpose(0, -1).contiguous().transpose(0, -1) if v.dim() > 1 else v for k, v in state.items()}
    else:
        state[("more", _pick(state, rng))[int(rng.integers(2))]] = torch.zeros(1).expand(10 ** int(rng.integers(9, 15)))
    return _torch(folder, {"model": state}, f"views ({choice})", good=choice < 2, zipped=zipped)


def other_keys(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """A key less, more, renamed, or of another shape."""
    name, state = _pick(kind.state, rng), dict(kind.state)
    choice = int(rng.integers(5))
    if choice == 0:
        del state[name]
    elif choice == 1:
        state["of.another.network"] = torch.zeros(3)
    elif choice == 2:
        state[name[: len(name) // 2]] = state.pop(name)
    elif choice == 3:
        state[name] = state[name][..., None]
    else:
        state[name] = state[name][: state[name].shape[0] // 2]
    return _torch(folder, {"model": state}, f"other keys ({choice}) at {name}", good=False)


def other_metadata(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Metadata of ours with something changed."""
    changed, label = change_json(kind.metadata, rng)
    if rng.integers(2):
        save_file(kind.state, folder / "a.safetensors", {"visdeploy": json.dumps(changed)})
        return folder / "a.safetensors", f"metadata: {label}", False, 0.0
    return _torch(folder, {"state_dict": kind.state, "visdeploy": changed}, f"metadata: {label}", good=False)


def other_overrides(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """A setting of the network with an odd value."""
    names = [*OPTIONS, "freeze_at", "score_threshold", "class_prior", "backbone", "mask_size", "num_heads"]
    name, value = names[int(rng.integers(len(names)))], ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    changed = {**kind.metadata, "overrides": {**kind.metadata.get("overrides", {}), name: value}}
    label = f"{name} = {str(value)[:30]!r}"
    return _torch(folder, {"state_dict": kind.state, "visdeploy": changed}, label, good=False)


def nested(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Lists that contain one another, or are nested without end, where settings are expected."""
    value: Any = ["x"]
    for _ in range(int(rng.integers(20, 60))):
        value = [value] * 9
    choice = int(rng.integers(4))
    if choice == 0:
        value = []
        value.append(value)
    place = ("classes", "overrides", "method", "variant")[int(rng.integers(4))]
    changed = {**kind.metadata, place: {"a": value} if choice == 1 else value}
    return _torch(folder, {"state_dict": kind.state, "visdeploy": changed}, f"{place} nested ({choice})", good=False)


def headers(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """A safetensors header that lies."""
    data = kind.ours.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    choice = int(rng.integers(7))
    names = [k for k in header if k != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    size = length
    if choice == 0:
        size = int(rng.integers(2**40))
    elif choice == 1:
        header[name]["data_offsets"] = [int(v) for v in rng.integers(-5, 10**6, 2)]
    elif choice == 2:
        header[name]["shape"] = [int(v) for v in rng.integers(0, 2**31, 3)]
    elif choice == 3:
        header[name]["dtype"] = ("F64", "I8", "BOOL", "C64", "F8_E4M3", "XX", "")[int(rng.integers(7))]
    elif choice == 4:
        header[name] = header[names[0]]
    elif choice == 5:
        header["__metadata__"] = {"visdeploy": "[" * int(rng.integers(10**5))}
    else:
        header, _ = change_json(header, rng)
    text = json.dumps(header).encode()
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if size == length else size) + text + data[8 + length :])
    return path, f"header ({choice}) at {name}", False, 0.0


def names_of_files(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Another ending than the content has, and names as users choose them."""
    choice = int(rng.integers(4))
    if choice == 0:
        made = _torch(folder, {"model": kind.state}, "a pickle named .safetensors", good=False)
        return made[0].rename(folder / "a.safetensors"), *made[1:]
    name = ("", "weights.bin", "12:30 größe.pth", "a" * 200 + ".pt")[choice]
    (folder / name).write_bytes(kind.ours.read_bytes())
    return folder / name, f"safetensors named {name[:20]}", True, 0.0


def archives(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """A torch file whose archive was written anew: compressed, doubled, without checksums, or huge when inflated."""
    torch.save({"model": kind.state}, folder / "b.pth")
    path, choice = folder / "a.pth", int(rng.integers(4))
    with (
        zipfile.ZipFile(folder / "b.pth") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if choice == 0 else zipfile.ZIP_STORED) as new,
    ):
        for record in old.namelist():
            content = old.read(record)
            if choice == 1 and record.endswith("/0"):
                content = content[:-4] + b"\x00\x00\x80\x7f"
            new.writestr(record.replace("b/", "a/"), content)
        if choice == 2:
            new.writestr("a/data/99999", bytes(1 << 28), zipfile.ZIP_DEFLATED)
        if choice == 3:
            new.writestr("a/../../../escape", b"x")
    return path, f"archive ({choice})", False, 0.0


def not_files(kind: Checkpoints, rng: Rng, folder: Path) -> Made:
    """Something that is no file, or cannot be read."""
    path, choice = folder / "a.pth", int(rng.integers(5))
    if choice == 0:
        path.mkdir()
    elif choice == 1:
        os.mkfifo(path)
    elif choice == 2:
        path.symlink_to(path)
    elif choice == 3:
        path = Path("/dev/zero")
    return path, f"no file ({choice})", False, 0.0


MAKERS = (
    prefixes, containers, precisions, arrays, code, other_tensors, other_values, exponents, views, other_keys,
    other_metadata, other_overrides, nested, headers, names_of_files, archives, not_files,
)  # fmt: skip
KIND = Checkpoints()
