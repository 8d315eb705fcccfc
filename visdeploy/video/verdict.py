"""Verdict on the completeness of a video: one rule for all containers.

A video is damaged if the demuxer or the decoder fails, if the decoder conceals damage, if frames that its index or its
parts announce are not in it, or if it ends or breaks inside a part that can hold frames. It is complete if there is no
such sign, and either the index of the whole file is fulfilled, whichever bytes are missing behind its frames, or the
file reaches the end that its container states. Otherwise, or if coded frames gave no image, it is unknown. Counts and
durations in headers are no evidence, because programs write wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visdeploy.video.integrity import Ending, Structure

Verdict = Literal["complete", "damaged", "unknown"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a video after it was read to its end.

    Attributes:
        packets: Number of coded frames that were read.
        indexed: Number of coded frames according to an index of the whole file; None without one.
        announced: Number of coded frames that parts of the file announce; 0 if unknown.
        corrupt: Number of coded frames that the demuxer found to be incomplete.
        undecoded: Number of coded frames from which the decoder made none, although it found no fault.
        structure: Structure of the file; None if it was not examined.
    """

    packets: int
    indexed: int | None = None
    announced: int = 0
    corrupt: int = 0
    undecoded: int = 0
    structure: Structure | None = None

    @property
    def truncated(self) -> bool:
        """Whether the end of the file is missing; otherwise the damage is in the middle."""
        return self._ending is Ending.CUT

    @property
    def _ending(self) -> Ending:
        return Ending.OPEN if self.structure is None else self.structure.ending

    def damage(self) -> str:
        """Return what is missing; an empty string if there is no sign of damage."""
        if self.indexed is not None:
            return f"its index states {self.indexed} frames" if self.packets < self.indexed else ""
        if self.structure is not None and self._ending in (Ending.CUT, Ending.BROKEN):
            return self.structure.seen
        if self.packets < self.announced:
            return f"its parts announce {self.announced} frames"
        # where the structure was examined, it tells more; FFmpeg takes joints of recordings for losses
        return f"{self.corrupt} frames are incomplete" if self.corrupt and self.structure is None else ""

    def verdict(self) -> Verdict:
        """Return the verdict."""
        if self.damage():
            return "damaged"
        ended = self.indexed is not None or self._ending is Ending.STATED
        return "complete" if ended and not self.undecoded else "unknown"
