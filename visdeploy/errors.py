"""Exceptions of the project, all derived from `VisdeployError`.

Every message tells what failed, what was seen, what was expected and what to do, in this order. It is one line,
whatever the names and texts in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 600


def suggestion(name: object, known: Iterable[str]) -> str:
    """Return the question whether another of the `known` names was meant, in any case; empty if none is similar."""
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(str(name)[:100].casefold(), folded, n=1)
    return f"Did you mean {folded[close[0]]!r}?" if close else ""


class VisdeployError(Exception):
    """Base class of all errors that visdeploy raises.

    Args:
        what: Failure and its location (file, field, tensor, node).
        seen: Value found.
        expected: Valid value or values.
        hint: Advice to the user on how to correct the error.
    """

    def __init__(self, what: str, *, seen: str = "", expected: str = "", hint: str = "") -> None:
        self.what, self.seen, self.expected, self.hint = str(what), str(seen), str(expected), str(hint)
        super().__init__(self._text())

    def _text(self) -> str:
        what, seen, expected, hint = map(_line, (self.what, self.seen, self.expected, self.hint))
        facts = [f"seen: {seen}"] * bool(seen) + [f"expected: {expected}"] * bool(expected)
        text = what + (f" ({'; '.join(facts)})" if facts else "")
        return f"{text}. {hint}" if hint else text


def _line(text: str) -> str:
    """Return text in one line of limited length, without characters that would control a terminal."""
    text = " ".join(text.splitlines()).strip()
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class BundleError(VisdeployError):
    """A bundle is missing, damaged, unsafe, or inconsistent with its manifest."""


class CheckpointError(VisdeployError):
    """A checkpoint cannot be read, is not safe to read, or does not match the model."""


class ConfigError(VisdeployError):
    """A recipe, an option or an argument has an invalid value."""


class UnknownNameError(ConfigError, KeyError):
    """A mapping has no such name. It is also a `KeyError`, as mappings raise it."""

    __str__ = VisdeployError.__str__


class DataError(VisdeployError):
    """An annotation file, an image or a result file is malformed or inconsistent."""


class ExportError(VisdeployError):
    """A checkpoint could not be exported, or its parity certificate failed."""


class OutputError(VisdeployError, OSError):
    """An output cannot be written, or writing it would destroy something else."""


class SourceError(VisdeployError):
    """A video or image source cannot be opened or decoded."""


class StreamError(VisdeployError):
    """A stream was used in the wrong order, or its saved state does not match the bundle."""


class EngineError(VisdeployError):
    """An engine could not be started, or failed while it ran."""


class VerificationError(VisdeployError):
    """A bundle runs, but does not reproduce its reference outputs."""


class DependencyError(VisdeployError):
    """A required package is not installed, or an object that a package provides cannot be used."""
