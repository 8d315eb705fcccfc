"""Media files of many kinds and kinds of damage, compared with plain decoding by PyAV and with Pillow.

Run `python -m tests.campaigns.media`. It writes the files to a temporary folder, compares the number, times and pixels
of the frames and the verdict, and prints a table; the exit code is 1 if a line differs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.campaigns.media_cases import CASES
from tests.campaigns.media_files import Case
from visdeploy.errors import SourceError
from visdeploy.video import open_source

_TIME = 1e-3  # seconds


@dataclass(frozen=True)
class Row:
    """Comparison of one file: number of frames, largest differences, and verdicts, ours and the correct one."""

    case: Case
    count: tuple[int, int]
    time: float
    pixels: float
    verdict: str
    stated_size: bool

    @property
    def good(self) -> bool:
        """Whether all values are those of the reference."""
        same = self.count[0] == self.count[1] and self.time <= _TIME and self.pixels <= self.case.loose
        return same and self.verdict == self.case.verdict and self.stated_size

    def line(self) -> str:
        """Return the line of the table."""
        return (
            f"{self.case.name:<24}{self.case.kind:<48}{self.count[0]:>4}{self.count[1]:>5}{self.time:>9.5f}"
            f"{self.pixels:>8.2f}  {self.verdict:<10}{self.case.verdict:<10}{'' if self.good else 'DIFFERS'}".rstrip()
        )


def reference(path: Path) -> tuple[list[float | None], list[np.ndarray | None]]:
    """Return times and upright RGB images of a video by a plain loop; packets that fail to decode are passed over.

    Images in which the decoder concealed damage are None: what it draws there depends on the number of threads.
    """
    times: list[float | None] = []
    images: list[np.ndarray | None] = []
    with av.open(str(path)) as file:
        stream = max(file.streams.video, key=lambda s: (Disposition.default in s.disposition, s.codec_context.width))
        for packet in file.demux(stream):
            if packet.size == 0 and packet.dts is not None:
                continue
            try:
                frames: Sequence[Any] = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                times.append(None if frame.pts is None else float(frame.pts * frame.time_base))
                image = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                images.append(None if frame.is_corrupt else image)
    return times, images


def compare(case: Case, folder: Path) -> Row:
    """Write the file of a case and compare it."""
    source: Any = case.make(folder / case.name)
    if case.images is None:
        times, images = reference(source)
    else:
        times, images = [], case.images
    times = list(case.times if case.times is not None else times)
    try:
        opened = open_source(source, **{"on_error": "skip", **case.options})
        stated = (opened.height, opened.width)
        frames = list(opened)
    except SourceError:
        return Row(case, (0, len(images)), 0.0, 0.0, "error", True)
    ours = [frame.timestamp for frame in frames]
    known = [(a, b - times[0]) for a, b in zip(ours, times, strict=False) if b is not None and times[0] is not None]
    late = max((abs(a - b) for a, b in known), default=0.0)
    off = max((_difference(f.image, image) for f, image in zip(frames, images, strict=False)), default=0.0)
    size = stated[0] is None or not frames or stated == frames[0].image.shape[:2]
    return Row(case, (len(frames), len(images)), late, off, opened.verdict, size)


def _difference(ours: np.ndarray, other: np.ndarray | None) -> float:
    if other is None:
        return 0.0
    return float(np.abs(ours.astype(float) - other).mean()) if ours.shape == other.shape else float("inf")


def main() -> int:
    """Compare all cases and print the table; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(case, Path(folder)) for case in CASES]
    print(f"PyAV {av.__version__}; times in seconds, differences of pixels in levels, mean of the worst frame")
    print(f"{'file':<24}{'kind':<48}{'n':>4}{'ref':>5}{'time':>9}{'pixels':>8}  {'verdict':<10}{'correct':<10}")
    for row in rows:
        print(row.line())
    bad = sum(not row.good for row in rows)
    print(f"{len(rows)} files, {bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
