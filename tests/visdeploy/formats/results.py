"""Results to save: a small fixed one, and Hypothesis strategies."""

import numpy as np
from hypothesis import strategies as st

from tests.support import rectangle
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult

CLASSES = ("person", "dog", "zürich tram")


def walkers(name: str = "street", *, frames: int = 6, height: int = 40, width: int = 60) -> VideoResult:
    """Return three tracks: two cross and overlap, one is absent in between."""
    tracks = [
        Track(0, 1, 0.9, {i: rectangle(height, width, 5, 4 + 6 * i, 12, 10) for i in range(frames)}, (0.1, 0.9, 0.0)),
        Track(3, 0, 0.3, {i: rectangle(height, width, 8, 40 - 6 * i, 20, 9) for i in range(frames)}, (0.3, 0.1, 0.2)),
        Track(7, 2, 0.5, {i: rectangle(height, width, 30, 2, 6, 6) for i in (0, frames - 1)}),
    ]
    stamps = tuple(i / 29.97 for i in range(frames))
    return VideoResult(name, height, width, frames, CLASSES, tracks, 29.97, frames + 1, stamps, "videos/street.mp4")


def masks(height: int, width: int, draw: st.DrawFn) -> Mask:
    if draw(st.booleans()):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        return rectangle(height, width, y, x, draw(st.integers(1, height)), draw(st.integers(1, width)))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return Mask.encode(np.random.default_rng(seed).random((height, width)) < density)


@st.composite
def video_results(draw: st.DrawFn, *, name: str = "clip") -> VideoResult:
    """Draw any result of a predictor, within a few pixels and frames; at least one track."""
    height, width, frames = draw(st.integers(1, 13)), draw(st.integers(1, 13)), draw(st.integers(1, 4))
    scores = st.floats(0, 1)
    tracks = []
    for track_id in sorted(draw(st.sets(st.integers(0, 254), min_size=1, max_size=4))):
        present = draw(st.sets(st.integers(0, frames - 1)))
        found = {i: masks(height, width, draw) for i in sorted(present)}
        vector = tuple(draw(st.lists(scores, min_size=3, max_size=3))) if draw(st.booleans()) else ()
        tracks.append(Track(track_id, draw(st.integers(0, 2)), draw(scores), found, vector))
    timed = draw(st.booleans())
    return VideoResult(
        draw(st.sampled_from([name, f"{name} 2/part:ü", "a.b"])), height, width, frames, CLASSES, tracks,
        draw(st.sampled_from([0.0, 25.0, 30000 / 1001])), draw(st.sampled_from([None, frames, frames + 3])),
        tuple(i * 0.04 for i in range(frames)) if timed else (), draw(st.sampled_from([None, "rtsp://host/x"])),
    )  # fmt: skip
