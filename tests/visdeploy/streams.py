"""Checks of streams that every engine and every method must pass."""

import json
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import numpy as np

from tests.conftest import REPOSITORY
from tests.visdeploy.step_graph import clip


def pushed(predictor, frames):
    with predictor.open_stream() as stream:
        return [stream.push(frame) for frame in frames]


def plain(result):
    """Return a frame's instances as JSON would give them back."""
    return [(i.track_id, i.label, i.score, i.mask.to_coco()) for i in result]


def plain_tracks(video):
    """Return a video's tracks as JSON would give them back."""
    return [
        (t.track_id, t.label, t.score, [(k, m.to_coco()) for k, m in sorted(t.masks.items())]) for t in video.tracks
    ]


GROWTH = """
import json, sys
import numpy as np
import psutil
from visdeploy import VISPredictor
frames, (first, last), seen = np.load(sys.argv[2]), map(int, sys.argv[3:5]), []
for result in VISPredictor(sys.argv[1], device="cpu", threads=1).stream(frames[t % len(frames)] for t in range(last)):
    if result.index + 1 in (first, last):
        seen.append(psutil.Process().memory_info().rss / 2**20)
print(json.dumps(seen))
"""


def check_memory_is_flat(bundle: Path, frames: np.ndarray, tmp_path: Path, *, first: int, last: int, limit: float):
    """Check that resident memory grows by less than `limit` MiB between two frames of an endless loop of `frames`.

    The stream runs in a process of its own: one that ran other tests returns and takes memory of theirs meanwhile.
    """
    np.save(tmp_path / "frames.npy", frames)
    before, after = output_of(GROWTH, bundle, tmp_path / "frames.npy", first, last)
    assert after - before < limit


def output_of(program: str, *arguments):
    """Return what a Python program prints as JSON in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_interleaved(predictor, videos):
    """Check that interleaved streams return the results of single streams, and return these."""
    alone = [pushed(predictor, video) for video in videos]
    streams, together = [predictor.open_stream() for _ in videos], [[] for _ in videos]
    for frames in zip_longest(*videos):
        for stream, frame, results in zip(streams, frames, together, strict=True):
            if frame is not None:
                results.append(stream.push(frame))
    assert together == alone
    return alone


CONTINUE = """
import json, sys
from tests.visdeploy.step_graph import clip
from tests.visdeploy.streams import plain, plain_tracks
from visdeploy import VISPredictor
stream = VISPredictor(sys.argv[1], device="cpu").load_stream(sys.argv[2])
found = [plain(stream.push(f)) for f in clip(70)[50:]]
print(json.dumps({"start": stream.num_frames - 20, "frames": found, "tracks": plain_tracks(stream.result())}))
"""


def check_saved_at_frame_50(predictor, bundle: Path, path: Path, **options) -> None:
    """Check that a stream saved at frame 50 continues in a new process with the results of this one."""
    frames = clip(70)
    with predictor.open_stream(collect=True, **options) as stream:
        for frame in frames[:50]:
            stream.push(frame)
        saved = stream.save(path)
        wanted = {"start": 50, "frames": [plain(stream.push(f)) for f in frames[50:]]}
        wanted["tracks"] = plain_tracks(stream.result())
    assert output_of(CONTINUE, bundle, saved) == json.loads(json.dumps(wanted))
    assert sum(map(len, wanted["frames"])) >= 20
