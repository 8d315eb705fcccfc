"""The error of this package. It stands alone: plugins import nothing of the rest of the project."""

from __future__ import annotations


class OpError(ValueError):
    """An operator was given tensors that it cannot take, or cannot run where it was asked to.

    Args:
        what: The op and the tensor that is wrong.
        seen: What was found there.
        expected: What would have been right.
    """

    def __init__(self, what: str, *, seen: str = "", expected: str = "") -> None:
        self.what, self.seen, self.expected = what, seen, expected
        super().__init__(f"{what} (seen: {seen}; expected: {expected})" if seen or expected else what)
