"""The one exception family of the project.

Every message says what failed, what was seen, what was expected and what to do. `VisdeployError.format`
puts the four parts together so that they read alike everywhere.
"""

from __future__ import annotations


class VisdeployError(Exception):
    """Base class of every error raised on purpose by visdeploy.

    Args:
        what: What failed and where (file, field, tensor, node).
        seen: What was found there.
        expected: What would have been right.
        hint: What the user can do about it.
    """

    def __init__(self, what: str, *, seen: str = "", expected: str = "", hint: str = "") -> None:
        self.what, self.seen, self.expected, self.hint = what, seen, expected, hint
        super().__init__(self._text())

    def _text(self) -> str:
        facts = [f"seen: {self.seen}"] * bool(self.seen) + [f"expected: {self.expected}"] * bool(self.expected)
        text = self.what + (f" ({'; '.join(facts)})" if facts else "")
        return f"{text}. {self.hint}" if self.hint else text


class BundleError(VisdeployError):
    """A bundle is missing, damaged, unsafe, or inconsistent with its manifest."""


class CheckpointError(VisdeployError):
    """A checkpoint cannot be read, is not safe to read, or does not fit the model."""


class ConfigError(VisdeployError):
    """A recipe, an option or an argument has a value that cannot work."""


class DataError(VisdeployError):
    """An annotation file, an image or a result file is malformed or inconsistent."""


class ExportError(VisdeployError):
    """A checkpoint could not be exported, or its parity certificate failed."""


class SourceError(VisdeployError):
    """A video or image source cannot be opened or decoded."""


class StreamError(VisdeployError):
    """A stream was used out of order, or its saved state does not fit the bundle."""


class EngineError(VisdeployError):
    """An engine could not be started, or failed while it ran."""


class VerificationError(VisdeployError):
    """A bundle runs, but does not reproduce the outputs it was exported with."""


class DependencyError(VisdeployError):
    """A package is needed that is not installed, or what it brings cannot be used."""
