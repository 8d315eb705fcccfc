"""What the configurations of all methods have in common: checks that name the field, and settings of an export."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from visdeploy.errors import ConfigError

RUN_TIME = {"run_time": True}
"""Metadata of fields that say how a trained network is run: no weight depends on them, an export may change them."""
CALLED, WHY_FIXED = "called", "why_fixed"
"""Keys of metadata: a field's second name, the same in all methods; why an export cannot change it, as a sentence."""


@dataclass(frozen=True)
class MethodConfig:
    """Base of the frozen dataclasses that describe one network each; they check themselves in `__post_init__`.

    Attributes:
        method: Name of the method, for messages.
    """

    method: ClassVar[str]

    def __post_init__(self) -> None:
        """Make tuples of what JSON and YAML give as lists, and check the type of every value."""
        for name, hint in _types(type(self)).items():
            if get_origin(hint) is tuple and isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
            self.check(name, _is_a(getattr(self, name), hint), _describe(hint))

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """What to change so that inputs are of another size; None leaves a side as it is.

        Networks that keep the shape of the frames scale them into a shorter and a longer edge: these are meant then.
        """
        return {name: side for name, side in (("height", height), ("width", width)) if side is not None}

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same values by the names of the fields.

        Args:
            values: By the name of a field, or by its second name (`window`, `overlap`).

        Raises:
            ConfigError: There is no such field, or one is given twice.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self.method}: settings are malformed", seen=repr(values), expected="names and values, as a mapping"
            )
        fields = {f.name: f for f in dataclasses.fields(self)}
        second = {f.metadata[CALLED]: f for f in fields.values() if CALLED in f.metadata}
        found: dict[str, Any] = {}
        for name, value in values.items():
            field = fields.get(name) or second.get(name)
            if field is None:
                close = difflib.get_close_matches(name, [*fields, *second], n=1)
                raise ConfigError(
                    f"{self.method}: unknown setting {name!r}",
                    seen=repr(value),
                    expected=f"one of {self._settings()}",
                    hint=f"Did you mean {close[0]!r}?" if close else "",
                )
            if field.name in found:
                raise ConfigError(f"{self.method}: {_spell(field)} is given twice", seen=f"{', '.join(values)}")
            found[field.name] = value
        return found

    def export_settings(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What an export changes of a trained network's configuration, by the names of the fields.

        Args:
            overrides: Values of fields that are marked with `RUN_TIME`, by any name that `named` takes.

        Raises:
            ConfigError: A field is unknown, given twice, or one that an export cannot change.
        """
        found = self.named(overrides)
        for field in dataclasses.fields(self):
            seen, own = found.get(field.name), getattr(self, field.name)
            if field.name not in found or _is_run_time(field) or seen == own:
                continue
            hint = field.metadata.get(WHY_FIXED, "The weights or the training depend on it.")
            if field.name in self.input_size(1, 1):
                hint = "The options height and width of the export set the size of the input."
            raise ConfigError(
                f"{self.method}: {_spell(field)} cannot be changed at export",
                seen=repr(seen),
                expected=f"{own!r}, as in the checkpoint",
                hint=f"{hint} What can be changed: {self._settings()}.",
            )
        return found

    def check_given(self, given: Collection[str]) -> None:
        """Refuse chosen values that would be cut. Defaults of a variant may be cut, as its user did not choose them.

        Args:
            given: Names of the fields that were chosen.

        Raises:
            ConfigError: One of them would be cut.
        """

    def check(self, field: str, good: bool, expected: str) -> None:
        """Refuse a field's value.

        Raises:
            ConfigError: It is not `good`.
        """
        if not good:
            seen = repr(getattr(self, field))
            raise ConfigError(f"{self.method}: {field} has a wrong value", seen=seen, expected=expected)

    def check_least(self, least: int, *fields: str) -> None:
        """Nothing smaller than `least`."""
        for field in fields:
            self.check(field, getattr(self, field) >= least, f"at least {least}")

    def check_share(self, *fields: str) -> None:
        """At least 0 and less than 1."""
        for field in fields:
            self.check(field, 0 <= getattr(self, field) < 1, f"0 <= {field} < 1")

    def check_threshold(self, *fields: str) -> None:
        """From 0 to 1, both included."""
        for field in fields:
            self.check(field, 0 <= getattr(self, field) <= 1, f"0 <= {field} <= 1")

    def check_multiple(self, multiple: int, *fields: str) -> None:
        """Positive multiples of a number."""
        for field in fields:
            value = getattr(self, field)
            self.check(field, value > 0 and value % multiple == 0, f"a positive multiple of {multiple}")

    def _settings(self) -> str:
        """The fields that an export may change, as messages list them."""
        return ", ".join(sorted(_spell(f) for f in dataclasses.fields(self) if _is_run_time(f)))


def _is_run_time(field: dataclasses.Field[Any]) -> bool:
    return RUN_TIME.items() <= field.metadata.items()


def _spell(field: dataclasses.Field[Any]) -> str:
    """A field's name, and its second one."""
    return f"{field.name} ({field.metadata[CALLED]})" if CALLED in field.metadata else field.name


def _types(config: type[MethodConfig]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _is_a(value: object, hint: Any) -> bool:
    """Whether a value is of a field's type: a number, a boolean, a choice, or a tuple of such; a float may be whole."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"{len(get_args(hint))} values, each {_describe(get_args(hint)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, getattr(hint, "__name__", ""))
