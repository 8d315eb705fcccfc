"""Safe reading of weight files: safetensors, and torch files that contain no code."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy.arguments import check_path
from visdeploy.errors import CheckpointError
from visdeploy_training.checkpoint_digest import check_digest
from visdeploy_training.stand_ins import ALLOWED, NumberArray, read_pickle
from visdeploy_training.tensor_names import plain_names
from visdeploy_training.torch_pickles import MAGIC, is_newer, load_newer

logger = logging.getLogger(__name__)
METADATA_KEY = "visdeploy"
CONTAINERS = (
    *("model", "state_dict", "model_state_dict", "module", "weights", "checkpoint"),
    *("model_state", "network", "net", "params"),
)
NOTES = ("args", "meta")
"""Entries beside the weights that describe their training: arguments of the program, and mmcv's description."""
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema")
DTYPES = frozenset(
    getattr(torch, name)
    for name in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
)
_EXPANSION = 100
_DEPTH = 3
"""Dictionaries inside each other around a state dict, such as `{"ema": {"module": ...}}`."""
_VIEWS = {True: 1 << 28, False: 1 << 34}
"""Bytes that tensors may have in addition to those that are stored, because views repeat them: in files, in memory."""
_lock = threading.Lock()


@dataclass(frozen=True)
class TensorFile:
    """Tensors and metadata of a file.

    Attributes:
        tensors: Map from name to tensor, on the CPU, without the names of wrappers (see `plain_names`).
        metadata: Metadata written by visdeploy; empty for files of other origin.
        notes: What a trainer has stored about the training, by the names in `NOTES`; values of any type.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def read_tensors(path: str | Path) -> TensorFile:
    """Read a `.safetensors` file of any origin, or a torch file that contains only data.

    Raises:
        CheckpointError: The file is missing or damaged, contains code, or contains no tensors.
    """
    path = check_path(path, "path of a checkpoint", error=CheckpointError)
    if not path.is_file():
        seen = "not a file" if path.exists() else ""
        raise CheckpointError(f"no such checkpoint: {path}", seen=seen, hint="Check the path.")
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}", seen=error.strerror or str(error)) from error
    # A safetensors file starts with the length of its JSON, whose bytes can equal the start of a pickle.
    if head[8:9] != b"{" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        if path.suffix.lower() == ".safetensors":
            raise CheckpointError(
                f"{path} is not a safetensors file",
                seen="a torch file or another pickle",
                expected="the content that the name states",
                hint="Rename it to .pth if you trust its origin; it is then read without running code.",
            )
        return from_object(_load_pickle(path, head), where=str(path), from_file=True)
    return _load_safetensors(path)


def _load_safetensors(path: Path) -> TensorFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or is damaged",
            seen=str(error),
            expected=".safetensors, or a torch file (.pth, .ckpt)",
            hint="Copy or download the file again.",
        ) from error
    data = parse_metadata(metadata.get(METADATA_KEY), where=str(path))
    check_digest(tensors, data, str(path))
    return TensorFile(_checked(tensors, str(path)), data)


def _load_pickle(path: Path, head: bytes) -> Any:
    try:
        if head[:2] == b"PK":
            _check_archive(path)
        elif MAGIC not in head:
            return read_pickle(path)
        if is_newer(path, head):
            with _lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return load_newer(path)
        allowed: list[Any] = [(stand_in, name) for name, stand_in in ALLOWED.items()]
        with _lock, warnings.catch_warnings(), torch.serialization.safe_globals(allowed), path.open("rb") as file:
            warnings.simplefilter("ignore")  # about pickle protocols; the error below is more specific
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = next((line for line in str(error).splitlines() if "GLOBAL" in line), "")
        if not refused:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path} contains more than tensors and plain data, and is not loaded",
            seen=refused[:200],
            expected="tensors, numbers, strings, lists, dictionaries, and harmless objects such as argparse.Namespace",
            hint="Loading such a file could run code. On a machine where you trust the file, save only its state dict, "
            "preferably as safetensors, and convert that file.",
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # damaged pickles raise exceptions of any type
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Compare the checksum of every record of a torch file, which `torch.load` does not.

    Raises:
        CheckpointError: A record has another checksum, or expands to a multiple of the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if sum(record.file_size for record in records) > _EXPANSION * path.stat().st_size:
                raise ValueError(f"records that expand to more than {_EXPANSION} times the file")
            if any(record.file_size for record in records) and not any(record.CRC for record in records):
                logger.warning("%s has no checksums; damage of its weights would not be noticed", path)
                return
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    if broken is not None:
        raise CheckpointError(
            f"{path} is damaged",
            seen=f"the record {broken[:100]!r} does not have the checksum (CRC-32) stored with it",
            hint="Copy or download the file again.",
        )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or incomplete, or is a pickle that cannot be read without running code",
        seen=_detail(error),
        expected=".safetensors, or a torch file (.pth, .ckpt)",
        hint="Copy or download the file again.",
    )


def _detail(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if line.startswith("Unsupported")] or lines or [type(error).__name__]
    return wanted[0][:200]


def from_object(data: Any, *, where: str = "the state dict", from_file: bool = False) -> TensorFile:
    """Find the tensors in the content of a torch file: a state dict, or a dictionary that contains one.

    Args:
        data: The content.
        where: Its origin, for errors.
        from_file: It was read from a file, in which views do not repeat much.

    Raises:
        CheckpointError: The content has no state dict.
    """
    if isinstance(data, Mapping):
        metadata = parse_metadata(data.get(METADATA_KEY), where=where)
        inner = {k: v for k, v in data.items() if k != METADATA_KEY}
        for _ in range(_DEPTH):
            key = next((key for key in (*CONTAINERS, *AVERAGED) if isinstance(inner.get(key), Mapping)), None)
            if key is None:
                break
            if key in AVERAGED:
                logger.info("%s: the averaged weights under %r are read", where, key)
            inner = inner[key]
        tensors = {str(k): _tensor(v) for k, v in inner.items() if isinstance(k, str | int)}
        if tensors and len(tensors) == len(inner) and all(v is not None for v in tensors.values()):
            notes = {k: data[k] for k in NOTES if k in data}
            found = {k: v for k, v in tensors.items() if v is not None}
            return TensorFile(_checked(found, where, from_file=from_file), metadata, notes)
    raise CheckpointError(
        f"{where} contains no state dict",
        seen=type(data).__name__ + (f" with {_keys(data)}" if isinstance(data, Mapping) else ""),
        expected=f"names and tensors, directly or under one of {list(CONTAINERS)}",
    )


def _keys(data: Mapping[Any, Any]) -> str:
    """Return the first keys for messages, in bounded time whatever they are."""
    return str([key[:40] if isinstance(key, str) else type(key).__name__ for key in list(data)[:5]])


def _tensor(value: Any) -> Tensor | None:
    # detectron2 also saves NumPy arrays
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        held = NumberArray()
        held.value = value
        return held.tensor()
    return value.tensor() if isinstance(value, NumberArray) else None


def _checked(tensors: Mapping[str, Tensor], where: str, *, from_file: bool = True) -> dict[str, Tensor]:
    """Return the tensors by their plain names, after a check that each is an ordinary array of real numbers."""
    repeated = 0
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.is_nested:
            kind = f"{'nested' if tensor.is_nested else str(tensor.layout).removeprefix('torch.')} {kind}"
        elif tensor.is_meta:
            kind = f"{kind} without values (meta)"
        elif tensor.dtype in DTYPES:
            repeated += max(0, tensor.numel() * tensor.itemsize - tensor.untyped_storage().nbytes())
            if repeated <= _VIEWS[from_file]:
                continue
            kind = f"{kind} {tuple(tensor.shape)} of {tensor.untyped_storage().nbytes()} stored bytes, repeated"
        raise CheckpointError(
            f"{where}: tensor {name[:200]!r} is of a kind that no network here has",
            seen=kind,
            expected="a dense tensor of real numbers: float16, bfloat16, float32, float64, integers or bool",
            hint="Convert it before saving; quantised or complex weights cannot be used.",
        )
    return plain_names(tensors, where)


def parse_metadata(text: Any, *, where: str) -> dict[str, Any]:
    """Return the metadata of visdeploy from JSON text or from a dictionary; empty if there is none.

    Raises:
        CheckpointError: The metadata is not valid.
    """
    if text is None:
        return {}
    try:
        data = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: its metadata is not valid JSON", seen=str(error)[:200]) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: its metadata is malformed", seen=type(data).__name__, expected="an object")
    return data
