"""Safe reading of weight files: safetensors, and torch files that contain no code."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visdeploy.errors import CheckpointError

METADATA_KEY = "visdeploy"
CONTAINERS = ("model", "state_dict", "model_state_dict", "module", "weights")


@dataclass(frozen=True)
class TensorFile:
    """Tensors and metadata of a file.

    Attributes:
        tensors: Map from name to tensor, on the CPU; a leading `module.` is removed.
        metadata: Metadata written by visdeploy; empty for files of other origin.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


def read_tensors(path: str | Path) -> TensorFile:
    """Read a `.safetensors` file of any origin, or a torch file that contains only data.

    Raises:
        CheckpointError: The file is missing or damaged, contains code, or contains no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}", hint="Check the path.")
    with path.open("rb") as file:
        head = file.read(16)
    # A safetensors file starts with the length of its JSON, whose bytes can equal the start of a pickle.
    if head[8:9] != b"{" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        return from_object(_load_torch(path), where=str(path))
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
    return TensorFile(_strip_module(tensors), parse_metadata(metadata.get(METADATA_KEY), where=str(path)))


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; the error below is more specific
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = next((line for line in str(error).splitlines() if "GLOBAL" in line), "")
        if not refused:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path} contains more than tensors and plain data, and is not loaded",
            seen=refused[:200],
            expected="tensors, numbers, strings, lists and dictionaries",
            hint="Loading such a file could run code. On a machine where you trust the file, save only its state dict, "
            "preferably as safetensors, and convert that file.",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, IndexError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error


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


def from_object(data: Any, *, where: str = "the state dict") -> TensorFile:
    """Find the tensors in the content of a torch file: a state dict, or a dictionary that contains one.

    Raises:
        CheckpointError: The content has no state dict.
    """
    if isinstance(data, Mapping):
        metadata = parse_metadata(data.get(METADATA_KEY), where=where)
        for key in CONTAINERS:
            if isinstance(data.get(key), Mapping):
                inner = data[key]
                break
        else:
            inner = {k: v for k, v in data.items() if k != METADATA_KEY}
        tensors = {str(k): _tensor(v) for k, v in inner.items()}
        if tensors and all(v is not None for v in tensors.values()):
            return TensorFile(_strip_module({k: v for k, v in tensors.items() if v is not None}), metadata)
    raise CheckpointError(
        f"{where} contains no state dict",
        seen=type(data).__name__ + (f" with {list(data)[:5]}" if isinstance(data, Mapping) else ""),
        expected=f"names and tensors, directly or under one of {list(CONTAINERS)}",
    )


def _tensor(value: Any) -> Tensor | None:
    # detectron2 also saves NumPy arrays
    if isinstance(value, Tensor):
        return value.detach()
    return torch.from_numpy(value) if type(value).__module__ == "numpy" and hasattr(value, "dtype") else None


def _strip_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if tensors and all(k.startswith("module.") for k in tensors):
        return {k.removeprefix("module."): v for k, v in tensors.items()}
    return tensors


def parse_metadata(text: Any, *, where: str) -> dict[str, Any]:
    """Return the metadata of visdeploy from JSON text or from a dictionary; empty if there is none.

    Raises:
        CheckpointError: The metadata is not valid.
    """
    if text is None:
        return {}
    try:
        data = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise CheckpointError(f"{where}: its metadata is not valid JSON", seen=str(error)) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: its metadata is malformed", seen=type(data).__name__, expected="an object")
    return data
