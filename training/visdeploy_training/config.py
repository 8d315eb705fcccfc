"""What the configurations of all methods have in common: checks that name the field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from visdeploy.errors import ConfigError


class MethodConfig:
    """Base of the frozen dataclasses that describe one network each; they check themselves in `__post_init__`.

    Attributes:
        method: Name of the method, for messages.
    """

    method: ClassVar[str]

    def input_size(self, height: int | None, width: int | None) -> dict[str, int]:
        """What to change so that inputs are of another size; None leaves a side as it is.

        Networks that keep the shape of the frames scale them into a shorter and a longer edge: these are meant then.
        """
        return {name: side for name, side in (("height", height), ("width", width)) if side is not None}

    def freeze_lists(self, *fields: str) -> None:
        """Make tuples of what JSON and YAML give as lists."""
        for field in fields:
            object.__setattr__(self, field, tuple(getattr(self, field)))

    def check(self, field: str, good: bool, expected: str) -> None:
        """Refuse a field's value.

        Raises:
            ConfigError: It is not `good`.
        """
        if not good:
            seen = repr(getattr(self, field))
            raise ConfigError(f"{self.method}: {field} has a wrong value", seen=seen, expected=expected)

    def check_choice(self, field: str, choices: Iterable[Any]) -> None:
        """One of the choices."""
        choices = tuple(choices)
        self.check(field, getattr(self, field) in choices, " or ".join(map(str, choices)))

    def check_least(self, least: int, *fields: str) -> None:
        """Nothing smaller than `least`."""
        for field in fields:
            self.check(field, getattr(self, field) >= least, f"at least {least}")

    def check_share(self, *fields: str) -> None:
        """At least 0 and less than 1."""
        for field in fields:
            self.check(field, 0 <= getattr(self, field) < 1, f"0 <= {field} < 1")

    def check_multiple(self, multiple: int, *fields: str) -> None:
        """Positive multiples of a number."""
        for field in fields:
            value = getattr(self, field)
            self.check(field, value > 0 and value % multiple == 0, f"a positive multiple of {multiple}")
