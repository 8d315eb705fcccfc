"""Base class of the configurations of all methods: checks that name the field, and settings of an export."""

from __future__ import annotations

import dataclasses
import logging
import math
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from visdeploy.errors import ConfigError, suggestion

logger = logging.getLogger(__name__)
RUN_TIME = {"run_time": True}
"""Metadata of fields that affect only how a trained network is run, not its weights; an export may change them."""
CALLED, WHY_FIXED = "called", "why_fixed"
"""Keys of metadata: a second name of the field, common to all methods; the reason why an export cannot change it."""
MOST = "most"
"""Key of metadata: the largest value of a number, in place of `LARGEST`."""
LARGEST = 2**20
MAX_STAGES = 5
"""Stages of a backbone that can be frozen, with the stem."""
MAX_EDGE, MAX_FRAMES, MAX_LAYERS = 8192, 1024, 128
"""Largest edge of an input, window, and number of layers in a row: with more, no machine could run the network."""


@dataclass(frozen=True)
class MethodConfig:
    """Base class of configurations, frozen dataclasses that each describe one network and check their own values.

    Attributes:
        method: Name of the method, for messages.
    """

    method: ClassVar[str]

    def __post_init__(self) -> None:
        """Convert lists, as read from JSON and YAML, to tuples, and check the type and the range of every value."""
        most = {field.name: field.metadata.get(MOST, LARGEST) for field in dataclasses.fields(self)}
        for name, hint in _types(type(self)).items():
            if get_origin(hint) is tuple and isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
            value = getattr(self, name)
            self.check(name, _is_a(value, hint), _describe(hint))
            values = value if isinstance(value, tuple) else (value,)
            self.check(name, len(values) <= MAX_LAYERS, f"at most {MAX_LAYERS} values")
            numbers = [each for each in values if isinstance(each, int | float)]
            self.check(name, all(each <= most[name] for each in numbers), f"at most {most[name]}")
            if float in (hint, *get_args(hint)):
                self.check(name, all(each >= 0 for each in numbers), "at least 0")

    @property
    def channel_order(self) -> Literal["rgb", "bgr"]:
        """Order of the channels of the network input, also of its mean and standard deviation."""
        return "rgb"

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """Return the fields to change for another input size, with their values; None keeps a side.

        For networks that keep the aspect ratio of frames, the fields are the shorter and the longer edge.
        """
        return {name: side for name, side in (("height", height), ("width", width)) if side is not None}

    def edges(self, height: int | None, width: int | None) -> dict[str, int]:
        """Return `input_size` of a network whose fields are `shortest_edge` and `longest_edge`."""
        sides = (("shortest_edge", height), ("longest_edge", width))
        return {name: side for name, side in sides if side is not None}

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Replace second names of fields by their names.

        Args:
            values: Map from the name or the second name (`window`, `overlap`) of a field to its value.

        Raises:
            ConfigError: A field is unknown or given twice.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self.method}: settings are malformed", seen=_shown(values), expected="names and values, as a mapping"
            )
        fields = {f.name: f for f in dataclasses.fields(self)}
        second = {f.metadata[CALLED]: f for f in fields.values() if CALLED in f.metadata}
        found: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(name, str):
                raise ConfigError(f"{self.method}: a setting is malformed", seen=_shown(name), expected="a name")
            field = fields.get(name) or second.get(name)
            if field is None:
                raise ConfigError(
                    f"{self.method}: unknown setting {name!r}",
                    seen=_shown(value),
                    expected=f"one of {self._settings()}",
                    hint=suggestion(name, [*fields, *second]),
                )
            if field.name in found:
                raise ConfigError(f"{self.method}: {_spell(field)} is given twice", seen=f"{', '.join(values)}")
            found[field.name] = value
        return found

    def export_settings(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that an export changes in the configuration of a trained network, with their values.

        They include the overlap if the window changes, see `overlap_for`.

        Args:
            overrides: Map from any name that `named` accepts to the value, for fields marked with `RUN_TIME`.

        Raises:
            ConfigError: A field is unknown, given twice, or cannot be changed by an export.
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
                seen=_shown(seen),
                expected=f"{own!r}, as in the checkpoint",
                hint=f"{hint} An export can change {self._settings()}.",
            )
        return found | self.overlap_for(found)

    def overlap_for(self, changes: Mapping[str, Any]) -> dict[str, int]:
        """Return the field of the overlap and its value if the window changes; an empty map otherwise.

        An overlap in `changes` is kept. Otherwise, if the overlap of this configuration exceeds half of the new window,
        it is scaled in proportion to the window, to at least one frame, and a warning is logged.

        Args:
            changes: Map from the name of a field to its new value.
        """
        names = {f.metadata.get(CALLED, f.name): f.name for f in dataclasses.fields(self)}
        window, overlap = names.get("window", ""), names.get("overlap", "")
        length = changes.get(window)
        if not overlap or not isinstance(length, int) or length < 1 or length == getattr(self, window):
            return {}
        before, shared = getattr(self, window), getattr(self, overlap)
        if overlap in changes or 2 * shared <= length:
            return {overlap: changes.get(overlap, shared)}
        scaled = min(max(1, shared * length // before), length - 1)
        logger.warning(
            "%s: the overlap of %d frames is too large for a window of %d frames, and is scaled to %d (stride %d); "
            "set %r to choose another",
            *(self.method, shared, length, scaled, length - scaled, "overlap"),
        )
        return {overlap: scaled}

    def check_given(self, given: Collection[str]) -> None:
        """Raise an error for values chosen by the user that would be reduced; defaults may be reduced silently.

        Args:
            given: Names of the fields chosen by the user.

        Raises:
            ConfigError: The value of one of these fields would be reduced.
        """

    def check_overlap(self, given: Collection[str], frames: int) -> None:
        """Raise a `ConfigError` if `clip_overlap` is given and not less than the frames of a window."""
        if "clip_overlap" in given:
            overlap = getattr(self, "clip_overlap")  # noqa: B009
            self.check("clip_overlap", overlap < frames, f"less than the window, {frames} frames")

    def check(self, field: str, good: bool, expected: str) -> None:
        """Raise an error unless the value of a field is `good`.

        Raises:
            ConfigError: The value is not `good`; the message names the field and the `expected` values.
        """
        if not good:
            seen = _shown(getattr(self, field))
            raise ConfigError(f"{self.method}: {field} has a wrong value", seen=seen, expected=expected)

    def check_least(self, least: int, *fields: str) -> None:
        """Raise a `ConfigError` if a field is less than `least`."""
        for field in fields:
            self.check(field, getattr(self, field) >= least, f"at least {least}")

    def check_most(self, most: int, *fields: str) -> None:
        """Raise a `ConfigError` if a field is more than `most`."""
        for field in fields:
            self.check(field, getattr(self, field) <= most, f"at most {most}")

    def check_input(self) -> None:
        """Raise a `ConfigError` for edges that no input can have, and for a standard deviation that is not positive."""
        names = {field.name for field in dataclasses.fields(self)}
        self.check_most(MAX_EDGE, *sorted({"height", "width", "shortest_edge", "longest_edge"} & names))
        self.check("pixel_std", min(getattr(self, "pixel_std")) > 0, "positive numbers")  # noqa: B009
        if "freeze_at" in names:
            self.check_most(MAX_STAGES, "freeze_at")

    def check_share(self, *fields: str) -> None:
        """Raise a `ConfigError` unless each field is at least 0 and less than 1."""
        for field in fields:
            self.check(field, 0 <= getattr(self, field) < 1, f"0 <= {field} < 1")

    def check_positive(self, *fields: str) -> None:
        """Raise a `ConfigError` unless each field is more than 0."""
        for field in fields:
            self.check(field, getattr(self, field) > 0, "more than 0")

    def check_threshold(self, *fields: str) -> None:
        """Raise a `ConfigError` unless each field is from 0 to 1 inclusive."""
        for field in fields:
            self.check(field, 0 <= getattr(self, field) <= 1, f"0 <= {field} <= 1")

    def check_multiple(self, multiple: int, *fields: str) -> None:
        """Raise a `ConfigError` unless each field is a positive multiple of `multiple`."""
        for field in fields:
            value = getattr(self, field)
            self.check(field, value > 0 and value % multiple == 0, f"a positive multiple of {multiple}")

    def _settings(self) -> str:
        """Return the names of the fields that an export may change, as text for messages."""
        return ", ".join(sorted(_spell(f) for f in dataclasses.fields(self) if _is_run_time(f)))


def _is_run_time(field: dataclasses.Field[Any]) -> bool:
    return RUN_TIME.items() <= field.metadata.items()


def _spell(field: dataclasses.Field[Any]) -> str:
    """Return the name of a field, with its second name in brackets if it has one."""
    return f"{field.name} ({field.metadata[CALLED]})" if CALLED in field.metadata else field.name


def _shown(value: object) -> str:
    """Return a value for a message, whose length is limited also if lists are nested or numbers are long."""
    try:
        return repr(value)[:200] if isinstance(value, str | int | float | None) else reprlib.repr(value)
    except ValueError:  # Python does not spell whole numbers of thousands of digits
        return f"{type(value).__name__} of too many digits"


def _types(config: type[MethodConfig]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _is_a(value: object, hint: Any) -> bool:
    """Return whether a value is of a field's type: a number, a boolean, a choice, or a tuple of these.

    Integers are accepted for floats.
    """
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_is_a(each, kinds[0]) for each in value)
        return len(value) == len(kinds) and all(map(_is_a, value, kinds))
    if hint is float:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (isinstance(value, float) and math.isfinite(value))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        count = "" if kinds[-1] is Ellipsis else f"{len(kinds)} "
        return f"{count}values, each {_describe(kinds[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, getattr(hint, "__name__", ""))
