"""Resident memory of a long stream: megabytes after 300 frames, after 3,000, and in between.

    python benchmarks/memory.py demo/visolo_tiny.vis
    python benchmarks/memory.py BUNDLE --video street.mp4 --frames 3000

The frames are repeated in a loop, so that the measurement does not include the memory of the source. A clip method
returns its results window by window, so a mark may be inside a window. The exit status is 1 if the memory after the
last frame differs from that after the 300th by the limit or more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import psutil

import visdeploy
from visdeploy.video import open_source

FIRST = 300


def moving_boxes(count: int, height: int = 180, width: int = 320) -> list[np.ndarray]:
    """Create frames with boxes that move, disappear and reappear."""
    rng = np.random.default_rng(0)
    frames = list(rng.integers(60, 90, (count, height, width, 3), dtype=np.uint8))
    for k in range(5):
        y, x, vy, vx = *rng.integers(0, 100, 2), *rng.integers(-3, 4, 2)
        colour = 40 + 200 * np.eye(3, dtype=np.uint8)[k % 3]
        for t in range(count):
            if (t + 5 * k) % 11 > 2:
                top, left = (y + vy * t) % (height - 40), (x + vx * t) % (width - 60)
                frames[t][top : top + 40, left : left + 60] = colour
    return frames


def measure(predictor: visdeploy.VISPredictor, frames: Iterator[np.ndarray], marks: set[int]) -> dict[int, float]:
    """Measure the resident memory in megabytes after the given numbers of frames."""
    process, found = psutil.Process(), {}
    for result in predictor.stream(frames):
        if result.index + 1 in marks:
            found[result.index + 1] = process.memory_info().rss / 2**20
            print(f"{result.index + 1:6d} frames: {found[result.index + 1]:8.1f} MB", flush=True)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--video", type=Path, default=None, help="default: boxes that move, disappear and reappear")
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--limit", type=float, default=5.0, help="megabytes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.frames <= FIRST:
        parser.error(f"--frames must exceed {FIRST}")
    if options.video is None:
        loop = moving_boxes(90)
    else:
        with open_source(options.video, max_frames=90) as source:
            loop = [frame.image for frame in source]
    predictor = visdeploy.VISPredictor(options.bundle, device=options.device, threads=options.threads)
    marks = {30, 100, FIRST, 1000, 2000, options.frames}
    found = measure(predictor, islice(cycle(loop), options.frames), marks)
    difference, window = found[options.frames] - found[FIRST], predictor.bundle.manifest.window
    if window.length > 1:
        print(f"{1 + -(-(options.frames - window.length) // window.stride)} windows of {window.length} frames")
    print(f"{predictor}: {difference:+.1f} MB from frame {FIRST} to frame {options.frames}")
    return int(abs(difference) >= options.limit)


if __name__ == "__main__":
    sys.exit(main())
