"""Stand-ins for the harmless objects that trainers store beside the weights, so that reading a file runs no code.

A file is read without importing what it names: each name of the allow-list leads to one of the classes below, whatever
the file calls with it. NumPy numbers and arrays keep their values; all other objects are read and dropped.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

_KINDS = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,), "c": (8, 16)}


class Ignored(list[Any]):
    """Object whose content is not needed: it takes any arguments, items and attributes, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Drop the attributes."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a dictionary."""


class NumberType:
    """Stand-in for `numpy.dtype`: the type of a NumPy number or array, None for anything but numbers."""

    def __init__(self, code: Any = "", *arguments: Any) -> None:
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        known = isinstance(code, str) and code[1:].isdecimal() and len(code) < 4
        self.code = code if known and int(code[1:]) in _KINDS.get(code[0], ()) else None
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; the other attributes belong to types that are not numbers."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        self.order = order if order in ("<", ">", "=", "|") else "="

    def read(self, data: Any) -> np.ndarray[Any, Any] | None:
        """Return the numbers in `data`; None if the type or the length is wrong."""
        data = data.encode("latin-1") if isinstance(data, str) else data
        if self.code is None or not isinstance(data, bytes):
            return None
        kind = np.dtype(self.order + self.code)
        return None if len(data) % kind.itemsize else np.frombuffer(data, kind).astype(kind.newbyteorder("="))


class NumberArray:
    """Stand-in for `numpy.ndarray`; `value` is None for arrays of anything but numbers."""

    def __init__(self, *arguments: Any) -> None:
        self.value: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        """Take version, shape, type, order of the axes, and bytes."""
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], NumberType)):
            return
        values, shape = state[2].read(state[4]), state[1]
        if values is not None and isinstance(shape, tuple) and all(type(side) is int for side in shape):
            self.value = values.reshape(shape, order="F" if state[3] else "C")

    def tensor(self) -> Tensor | None:
        """Return the array as a tensor, if PyTorch has its type."""
        try:
            return None if self.value is None else torch.from_numpy(self.value)
        except (TypeError, ValueError):  # texts, another byte order, negative strides
            return None


def number(kind: Any = None, data: Any = b"") -> int | float | complex | bool | None:
    """Stand in for the constructor of NumPy numbers; return None for anything but a number."""
    values = kind.read(data) if isinstance(kind, NumberType) else None
    return values.item() if values is not None and values.size == 1 else None


def array(*arguments: Any) -> NumberArray:
    """Stand in for the constructor of NumPy arrays, whose content follows."""
    return NumberArray()


class Dictionary:
    """Stand-in for dictionaries with defaults or attributes, whose items follow: an `OrderedDict`."""

    def __new__(cls, *arguments: Any) -> Any:
        """Create the dictionary; the arguments are dropped."""
        return OrderedDict()


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_TYPES = ("Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64", "UInt8", "Bool", "Str", "Object")
_DICTIONARIES = (
    *("collections.defaultdict", "easydict.EasyDict", "addict.addict.Dict", "yacs.config.CfgNode"),
    *("mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict", "fvcore.common.config.CfgNode"),
    "detectron2.config.config.CfgNode",
)
_BUILTINS = (
    *("list", "dict", "tuple", "frozenset", "int", "float", "bool", "str", "slice", "range", "xrange"),
    *("long", "unicode", "bytes", "object", "set", "bytearray", "complex"),
)
_IGNORED = (
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"numpy.dtypes.{name}DType" for name in _NUMPY_TYPES),
    *(f"numpy.{name.lower()}" for name in _NUMPY_TYPES),
    *("collections.deque", "types.SimpleNamespace", "numpy.bool_", "numpy.str_", "numpy.random.__RandomState_ctor"),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "collections.UserDict", "collections.UserList"),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("randomstate", "generator", "bit_generator")),
    *("numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64"),
    *("mmengine.logging.history_buffer.HistoryBuffer", "torch.torch_version.TorchVersion"),
)
ALLOWED: dict[str, Any] = {
    **dict.fromkeys(_IGNORED, Ignored),
    **dict.fromkeys(_DICTIONARIES, Dictionary),
    **{f"{module}.scalar": number for module in _MULTIARRAY},
    **{f"{module}._reconstruct": array for module in _MULTIARRAY},
    "numpy.dtype": NumberType,
    "numpy.ndarray": NumberArray,
    "argparse.Namespace": Namespace,
}
"""Map from the names of the allow-list to their stand-ins."""


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any = "C") -> NumberArray:
    """Stand in for the constructor of NumPy arrays in protocol 5."""
    found = NumberArray()
    if isinstance(data, bytes | bytearray):
        found.__setstate__((1, shape, kind, order == "F", bytes(data)))
    return found


def _bytes(text: Any = "", encoding: Any = "") -> bytes:
    """Stand in for `_codecs.encode`, with which old pickles store bytes."""
    return text.encode("latin-1") if isinstance(text, str) else b""


class Reader(pickle._Unpickler):
    """Unpickler that knows only the allow-list.

    It is Python's own implementation in Python, so that attributes can be refused for anything but the stand-ins: with
    them, a file could change functions and classes for all that follows.
    """

    names = ALLOWED | {
        "_codecs.encode": _bytes,
        "numpy.core.numeric._frombuffer": _frombuffer,
        "numpy._core.numeric._frombuffer": _frombuffer,
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": Counter,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; nothing is imported."""
        try:
            return self.names[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}") from None

    def _build(self) -> None:
        target = self.stack[-2]  # type: ignore[attr-defined]
        if not isinstance(target, Ignored | NumberType | NumberArray | Namespace | OrderedDict | Counter):
            raise pickle.UnpicklingError(f"Unsupported attributes: GLOBAL {type(target).__name__}")
        self.load_build()  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}


def read_pickle(path: Path) -> Any:
    """Read a pickle of NumPy arrays and plain data, such as detectron2's `.pkl` files.

    Raises:
        UnpicklingError: It names something that is not on the allow-list. Damaged files raise other exceptions, too.
    """
    with path.open("rb") as file:
        return Reader(file, encoding="latin-1").load()
