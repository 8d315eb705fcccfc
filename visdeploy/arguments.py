"""Checks of arguments of the public interface: a value of a wrong type or range is an error that names the argument."""

from __future__ import annotations

import errno
import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, VisdeployError, suggestion

_T = TypeVar("_T")


def check_integer(
    value: Any, what: str, *, minimum: int = 0, maximum: int = 2**53, error: type[VisdeployError] = ConfigError
) -> int:
    """Return a whole number in `minimum..maximum` as int; integers of NumPy are accepted, truth values are not."""
    expected = f"a whole number from {minimum} up" if maximum == 2**53 else f"a whole number, {minimum}..{maximum}"
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise error(what, seen=shorten(value), expected=expected) from None
    if not minimum <= found <= maximum:
        raise error(what, seen=shorten(value), expected=expected)
    return found


def check_number(
    value: Any,
    what: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    error: type[VisdeployError] = ConfigError,
) -> float:
    """Return a finite number in `minimum..maximum` as float; numbers of NumPy are accepted, truth values are not."""
    try:
        found = math.nan if isinstance(value, bool | str | bytes | bytearray) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not (math.isfinite(found) and minimum <= found <= maximum):
        limits = [f"from {minimum:g}"] * (minimum > -math.inf) + [f"up to {maximum:g}"] * (maximum < math.inf)
        raise error(what, seen=shorten(value), expected=" ".join(["a finite number", *limits]))
    return found


def check_flag(value: Any, what: str) -> bool:
    """Return a truth value as bool; those of NumPy are accepted, numbers are not."""
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(what, seen=shorten(value), expected="True or False")
    return bool(value)


def check_type(
    value: Any, kind: type[_T], what: str, *, expected: str = "", error: type[VisdeployError] = ConfigError
) -> _T:
    """Return a value after checking its type."""
    if not isinstance(value, kind):
        raise error(what, seen=shorten(value), expected=expected or f"a {kind.__name__}")
    return value


def check_choice(value: Any, what: str, choices: Sequence[str]) -> str:
    """Return a string that is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(what, seen=shorten(value), expected=f"one of {', '.join(choices)}")
    return value


def check_path(value: Any, what: str, *, error: type[VisdeployError] = ConfigError) -> Path:
    """Return a path that the file system can represent; it need not exist."""
    expected = "a path as str or pathlib.Path"
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise error(what, seen=shorten(value), expected=expected)
    if not text:
        raise error(what, seen="an empty path", expected=expected)
    try:
        os.stat(text)
    except ValueError:
        raise error(
            what, seen=shorten(text), expected=f"{expected}, without characters that no file name has"
        ) from None
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            raise error(what, seen=f"a name of {len(text)} characters", expected=expected) from None
    return Path(text)


def check_names(value: Any, what: str, *, error: type[VisdeployError] = ConfigError) -> tuple[str, ...]:
    """Return strings as a tuple; a single string is an error."""
    names = None if isinstance(value, str | bytes) else as_tuple(value)
    if names is None or not all(isinstance(name, str) for name in names):
        raise error(what, seen=shorten(value), expected="a sequence of str")
    return names


def check_video_ids(value: Any) -> dict[str, int]:
    """Return a map from the name of a video to its id; empty for None."""
    given = {} if value is None else value
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError("video_ids", seen=shorten(value), expected="a map from the name of a video to its id")
    return {name: check_integer(number, f"video_ids: id of {shorten(name)}") for name, number in given.items()}


def as_tuple(value: Any) -> tuple[Any, ...] | None:
    """Return the items of an iterable as a tuple; None for everything else."""
    try:
        items = iter(value)
    except TypeError:
        return None
    return tuple(items)


def check_options(options: Mapping[str, Any], function: Callable[..., Any], what: str) -> None:
    """Raise a `ConfigError` that names an option which is no keyword of the function that will get it."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        hint = suggestion(unknown, known)
        raise ConfigError(f"unknown option {unknown!r} of {what}", expected=", ".join(known), hint=hint)
