"""Overrides `key=value` on the command line, for fields of a recipe and settings of an export."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from visdeploy.errors import ConfigError


def parse_override(text: str) -> tuple[str, Any]:
    """Parse `key=value`; the value is YAML: a number, true or false, text, or a list in brackets.

    Raises:
        ConfigError: There is no key or no `=`, or the value is not YAML.
    """
    key, sign, value = text.partition("=")
    key = key.strip()
    if not sign or not key:
        raise ConfigError("malformed override", seen=repr(text), expected="key=value, for example optim.lr=1e-3")
    try:
        return key, _number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of the override {key!r} is not YAML", seen=value) from error


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Parse several overrides, and return their values by key.

    Raises:
        ConfigError: An override is malformed, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, value = parse_override(text)
        if key in found:
            raise ConfigError(f"the override {key!r} is given twice", seen=f"{found[key]!r} and {value!r}")
        found[key] = value
    return found


def _number(value: Any) -> Any:
    """Convert text such as 1e-4 to a number; YAML 1.1 does not recognise it as one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
