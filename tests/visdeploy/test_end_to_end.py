"""A real exported VISOLO through the whole runtime: all ways in agree, streams are apart, saved streams go on."""

import json
import subprocess
import sys
from itertools import zip_longest

import pytest

from tests.visdeploy.step_graph import clip
from tests.visdeploy.test_predictor import resident
from tests.visdeploy.test_stream import CONTINUE, REPOSITORY, plain, pushed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def visolo(tiny_bundle):
    from visdeploy import VISPredictor

    return VISPredictor(tiny_bundle, device="cpu", threads=1)


def test_file_iterator_and_push_agree(visolo, tmp_path):
    from visdeploy.video import VideoWriter, open_source

    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 160, 120, fps=25) as writer:
        for frame in clip(20, size=(120, 160)):
            writer.write(frame)
    from_file = list(visolo.stream(path))
    with open_source(path) as source:
        frames = [f.image for f in source]
    assert [r.instances for r in from_file] == [r.instances for r in visolo.stream(iter(frames))]
    assert [r.instances for r in from_file] == [r.instances for r in pushed(visolo, frames)]
    assert sum(map(len, from_file)) >= 20


def test_interleaved_streams_equal_the_streams_alone(visolo):
    videos = [clip(20, seed=1), clip(14, seed=2, size=(40, 50))]
    alone = [pushed(visolo, video) for video in videos]
    streams, together = [visolo.open_stream() for _ in videos], [[] for _ in videos]
    for frames in zip_longest(*videos):
        for stream, frame, results in zip(streams, frames, together, strict=True):
            if frame is not None:
                results.append(stream.push(frame))
    assert together == alone


def test_saved_at_frame_50_continues_in_a_new_process(visolo, tiny_bundle, tmp_path):
    frames = clip(70)
    with visolo.open_stream(collect=True) as stream:
        for frame in frames[:50]:
            stream.push(frame)
        saved = stream.save(tmp_path / "stream.npz")
        wanted = {"start": 50, "frames": [plain(stream.push(f)) for f in frames[50:]]}
        wanted["tracks"] = [
            (t.track_id, t.label, t.score, [(k, m.to_coco()) for k, m in sorted(t.masks.items())])
            for t in stream.result().tracks
        ]
    done = subprocess.run(
        [sys.executable, "-c", CONTINUE, str(tiny_bundle), str(saved)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(wanted))
    assert sum(map(len, wanted["frames"])) >= 20


def test_memory_is_flat(visolo):
    frames = clip(60, size=(120, 160))
    seen = {}
    for result in visolo.stream(frames[t % 60] for t in range(400)):  # benchmarks/memory.py takes 3,000
        if result.index + 1 in (100, 400):
            seen[result.index + 1] = resident()
    assert abs(seen[400] - seen[100]) < 5
