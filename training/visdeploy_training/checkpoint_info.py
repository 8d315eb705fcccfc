"""Metadata of our own checkpoints: the description of the network, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visdeploy.brief import shorten
from visdeploy.errors import CheckpointError
from visdeploy_training.model import ModelInfo

FORMAT = 1


def metadata(info: ModelInfo) -> dict[str, Any]:
    """Return the metadata of a checkpoint; Lightning checkpoints store it under the key `visdeploy`."""
    return {
        "format": FORMAT,
        "method": info.method,
        "variant": info.variant,
        "overrides": dict(info.overrides),
        "classes": list(info.classes),
    }


def read_info(data: Mapping[str, Any], where: str) -> ModelInfo:
    """Return the description of a network from metadata of any origin.

    Only flat values of the expected types are accepted: everything later, messages included, takes bounded time.

    Raises:
        CheckpointError: A field is missing or has a wrong type, or the format is newer than this version's.
    """
    version = _field(data, "format", where, "a whole number from 1", lambda v: type(v) is int and v > 0)
    if version > FORMAT:
        raise CheckpointError(
            f"{where} has a newer format",
            seen=f"format {shorten(version)}",
            expected=f"at most {FORMAT}",
            hint="Install a newer version of visdeploy.",
        )
    method, variant = (_field(data, n, where, "a text", lambda v: isinstance(v, str)) for n in ("method", "variant"))
    classes = _field(data, "classes", where, "a list of texts", lambda v: _is_list(v) and all(map(_is_name, v)))
    overrides = _field(
        data,
        "overrides",
        where,
        "names, and numbers, texts or lists of these",
        lambda v: isinstance(v, Mapping) and all(isinstance(k, str) and _is_value(each) for k, each in v.items()),
    )
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    return ModelInfo(method, variant, tuple(str(name) for name in classes), settings)


def _field(data: Mapping[str, Any], name: str, where: str, expected: str, good: Any) -> Any:
    value = data.get(name)
    if name in data and good(value):
        return value
    raise CheckpointError(
        f"{where}: its metadata is malformed",
        seen=f"{name}: {_describe(value)}" if name in data else f"no {name}",
        expected=f"{name}: {expected}",
        hint="The checkpoint is damaged, or was not written by visdeploy.",
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_name(value: object) -> bool:
    return isinstance(value, str) or type(value) is int


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_value(value: object) -> bool:
    return _is_scalar(value) or (isinstance(value, list | tuple) and all(map(_is_scalar, value)))


def _describe(value: object) -> str:
    """Return a value for a message; of lists and mappings, which may be nested without end, the type alone."""
    return shorten(value) if _is_scalar(value) else type(value).__name__
