"""Embedding: two videos through one predictor, frame by frame, each with its own stream.

    python examples/push_frames.py BUNDLE VIDEO_A VIDEO_B

The streams are interleaved on purpose: they share the engine, never their tracks. Halfway the first one is saved and
taken up again from the file, as an application would across a restart.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import visdeploy
from visdeploy.video import open_source


def describe(result: visdeploy.FrameResult | None) -> str:
    """A frame's instances in one line; methods that see clips have none to give at first."""
    if result is None:
        return "later"
    return "; ".join(f"#{i.track_id} {result.classes[i.label]} {i.score:.2f}" for i in result) or "-"


def main() -> None:
    """Push frames of both videos in turn and print what is on screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("videos", type=Path, nargs=2)
    parser.add_argument("--frames", type=int, default=40)
    options = parser.parse_args()

    predictor = visdeploy.VISPredictor(options.bundle)
    first, second = predictor.open_stream(), predictor.open_stream()
    with (
        open_source(options.videos[0]) as a,
        open_source(options.videos[1]) as b,
        tempfile.TemporaryDirectory() as folder,
    ):
        for index, (frame_a, frame_b) in enumerate(islice(zip(a, b, strict=False), options.frames)):
            if index == options.frames // 2:
                saved = first.save(Path(folder) / "stream.npz")
                first.close()
                first = predictor.load_stream(saved)
            results = first.push(frame_a.image), second.push(frame_b.image)
            shown = [describe(result) for result in results]
            print(f"{index:4d} | {' | '.join(shown)}")
    first.close()
    second.close()


if __name__ == "__main__":
    main()
