"""The media files of the campaign, compared with the program ffmpeg, which shares no code with the runtime.

Run `python -m tests.campaigns.media_program [FFMPEG]`; without an argument, with that of the package imageio-ffmpeg.
FFmpeg decides by itself which stream it takes, how it turns pictures and what it drops.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.media_cases import CASES
from tests.campaigns.media_files import Case
from visdeploy.errors import SourceError
from visdeploy.video import open_source

_TIME, _PIXELS = 1.5e-3, 3.0
_LAST = "ffmpeg gives the last frame the time of the one before"
_DECODING = "where two frames have one time of display, ffmpeg takes that of decoding"
EXPLAINED = {
    "no_times.mp4": "ffmpeg leaves out times; right by construction are even ones",
    "zero_all.mp4": _LAST,
    "cut.mpg": _DECODING,
    "hole.mpg": _DECODING,
}
"""Files whose times are not those of ffmpeg, and why."""


def program() -> str:
    """Return the path of ffmpeg."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def chosen() -> list[Case]:
    """Return the cases that are videos and read without options."""
    return [case for case in CASES if not case.options and case.images is None]


def decode(ffmpeg: str, path: Path) -> tuple[list[float], np.ndarray]:
    """Return the times in seconds since the first picture, and the RGB pictures, of the stream that ffmpeg takes."""
    reading = [ffmpeg, "-v", "error", "-nostdin", "-i", f"file:{path}", "-an", "-sn", "-dn", "-fps_mode", "passthrough"]
    reading += ["-enc_time_base", "demux"]  # not in steps of the mean frame rate
    listing = subprocess.run([*reading, "-f", "framecrc", "-"], capture_output=True, text=True, check=False).stdout
    base = Fraction(found[1]) if (found := re.search(r"#tb 0: (\S+)", listing)) else Fraction(1)
    size = re.search(r"#dimensions 0: (\d+)x(\d+)", listing)
    rows = [line.split(",") for line in listing.splitlines() if line.startswith("0,")]
    times = [float(int(row[2]) * base) for row in rows]
    if size is None or not rows:
        return [], np.zeros((0, 0, 0, 3), np.uint8)
    width, height = int(size[1]), int(size[2])
    raw = subprocess.run(
        [*reading, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], capture_output=True, check=False
    ).stdout
    images = np.frombuffer(raw[: len(raw) // (width * height * 3) * (width * height * 3)], np.uint8)
    return [time - times[0] for time in times], images.reshape(-1, height, width, 3)


def compare(ffmpeg: str, case: Case, folder: Path) -> tuple[str, bool]:
    """Return the line of a case, and whether it agrees."""
    path = case.make(folder / case.name)
    times, images = decode(ffmpeg, path)
    try:
        frames: list[Any] = list(open_source(path, on_error="skip"))
    except SourceError:
        frames = []
    late = max((abs(f.timestamp - time) for f, time in zip(frames, times, strict=False)), default=0.0)
    # what a decoder draws in place of damage depends on its threads
    shown = zip(frames, images if case.verdict == "complete" else (), strict=False)
    off = max((_difference(f.image, image) for f, image in shown), default=0.0)
    good = len(frames) == len(times) and off <= max(_PIXELS, case.loose)
    note = "" if good else "DIFFERS"
    if late > _TIME:
        note = note or EXPLAINED.get(case.name, "DIFFERS")
    line = f"{case.name:<24}{case.kind:<48}{len(frames):>4}{len(times):>5}{late:>9.5f}{off:>8.2f}  {note}"
    return line.rstrip(), note != "DIFFERS"


def _difference(ours: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(ours.astype(float) - other).mean()) if ours.shape == other.shape else float("inf")


def main() -> int:
    """Compare all videos and print the table; return the exit code."""
    ffmpeg = sys.argv[1] if len(sys.argv) > 1 else program()
    version = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(version.partition(" Copyright")[0])
    print(f"{'file':<24}{'kind':<48}{'n':>4}{'ref':>5}{'time':>9}{'pixels':>8}")
    cases, bad = chosen(), 0
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            line, good = compare(ffmpeg, case, Path(folder))
            print(line, flush=True)
            bad += not good
    print(f"{len(cases)} files, {bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
