"""Exported VISOLO bundle in the whole runtime: equal results for all inputs, separate streams, resumption."""

import pytest

from tests.visdeploy.step_graph import clip
from tests.visdeploy.streams import check_interleaved, check_memory_is_flat, check_saved_at_frame_50, pushed

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
    check_interleaved(visolo, [clip(20, seed=1), clip(14, seed=2, size=(40, 50))])


def test_saved_at_frame_50_continues_in_a_new_process(visolo, tiny_bundle, tmp_path):
    check_saved_at_frame_50(visolo, tiny_bundle, tmp_path / "stream.npz")


def test_memory_is_flat(tiny_bundle, tmp_path):  # benchmarks/memory.py takes 3,000 frames
    check_memory_is_flat(tiny_bundle, clip(60, size=(120, 160)), tmp_path, first=100, last=400, limit=5)
