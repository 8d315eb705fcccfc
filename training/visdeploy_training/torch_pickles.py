"""Torch files whose pickle has a newer protocol than PyTorch's own safe reader knows, read by the allow-list."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch

from visdeploy_training.stand_ins import Ignored, Reader

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Number with which a torch file that is no archive starts, after the header of its pickle."""
_SAFE_PROTOCOL = 2
_DTYPES = {f"torch.{name}": Ignored for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_TORCH = {
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.Size": Ignored,
    "torch.device": Ignored,
    **_DTYPES,
}


class _TorchReader(Reader):
    """Reader that also creates tensors from the storages of a torch file."""

    names = Reader.names | _TORCH


def _load(file: IO[bytes], **options: Any) -> Any:
    return _TorchReader(file, **options).load()


_MODULE = SimpleNamespace(__name__="visdeploy", Unpickler=_TorchReader, load=_load)


def is_newer(path: Path, head: bytes) -> bool:
    """Return whether the pickle of a torch file has a newer protocol than 2.

    Args:
        path: The file.
        head: Its first bytes.
    """
    if head[:2] != b"PK":
        return head[1] > _SAFE_PROTOCOL
    with zipfile.ZipFile(path) as archive:
        records = [r for r in archive.infolist() if r.filename.count("/") == 1 and r.filename.endswith("/data.pkl")]
        if len(records) != 1:
            return False
        del records[0].CRC  # which a file need not have, and which has been compared otherwise
        with archive.open(records[0]) as file:
            start = file.read(2)
    return start[:1] == b"\x80" and start[1] > _SAFE_PROTOCOL


def load_newer(path: Path) -> Any:
    """Read a torch file of protocol 3 to 5. Nothing that the file names is imported or called, except for tensors.

    Raises:
        UnpicklingError: It names something that is not on the allow-list. Damaged files raise other exceptions, too.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise pickle.UnpicklingError("a TorchScript program")
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", pickle_module=_MODULE, weights_only=False)
