"""What the structure of a video file tells about its completeness."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Ending(Enum):
    """How a file ends."""

    STATED = "at the end that the container states"
    OPEN = "at an end that the container does not state"
    CUT = "before the end that the container states"
    BROKEN = "unknown, because a part in the middle cannot be read"


@dataclass(frozen=True, slots=True)
class Structure:
    """Structure of a video file.

    Attributes:
        ending: How the file ends.
        seen: What is damaged, for messages.
        frames: Number of coded frames whose headers were found; None if the container was not searched for them.
        fragmented: Whether the index of the container covers only a part of the file.
    """

    ending: Ending
    seen: str = ""
    frames: int | None = None
    fragmented: bool = False


def missing(count: int, where: str) -> str:
    """Return the description of a file that ends too early."""
    return f"{count} bytes are missing at the end of {where}"


def unreadable(position: int, expected: str) -> str:
    """Return the description of a file that is damaged in the middle."""
    return f"no {expected} at byte {position}"
