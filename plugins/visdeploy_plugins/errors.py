"""Exception of this package, which is independent of the other packages of visdeploy."""

from __future__ import annotations


class OpError(ValueError):
    """The arguments of an operator are invalid, or it cannot run on the given device.

    Args:
        what: The op, and the invalid tensor or parameter.
        seen: The value found.
        expected: The values allowed.
    """

    def __init__(self, what: str, *, seen: str = "", expected: str = "") -> None:
        self.what, self.seen, self.expected = what, seen, expected
        super().__init__(f"{what} (seen: {seen}; expected: {expected})" if seen or expected else what)
