"""State whose size follows the frames, or grows from step to step, and state of the type bfloat16."""

from itertools import zip_longest

import numpy as np
import pytest

from tests.visdeploy.sized_graph import (
    BOUND,
    HALF,
    check_arrays,
    check_state,
    expected,
    frames,
    make_bundle,
    run,
    start,
)
from visdeploy.backends import open_backend
from visdeploy.errors import EngineError, StreamError

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    return open_backend(make_bundle(tmp_path_factory.mktemp("bundle") / "sized.vis"), "cpu", threads=1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (48, 16)])
def test_the_first_state_has_the_size_of_the_frames(backend, height, width):
    host = backend.state_to_host(backend.initial_state({"height": height, "width": width}))
    assert {name: each.shape for name, each in host.items()} == {
        "near": (3, height // 8, width // 8), "memory": (0, 3), "peak": (3,), "step": (1,)
    }  # fmt: skip
    assert host["near"].dtype == host["memory"].dtype == np.float32
    assert host["peak"].dtype == np.uint16, "bfloat16 travels as its bits"
    assert host["peak"].tolist() == [HALF] * 3
    assert host["step"].tolist() == [-1]


def test_streams_of_two_sizes_share_an_engine(backend):
    videos = [frames(5, 16, 48, seed=1), frames(7, 32, 32, seed=2)]
    states, found = [start(backend, video[0]) for video in videos], [[], []]
    for pair in zip_longest(*videos):
        for index, frame in enumerate(pair):
            if frame is not None:
                outputs, states[index] = backend.run({"frame": frame}, states[index])
                found[index].append(outputs)
    for video, outputs, state in zip(videos, found, states, strict=True):
        wanted, last = expected(video)
        assert len(outputs) == len(wanted)
        for seen, each in zip(outputs, wanted, strict=True):
            check_arrays(seen, each)
        check_state(backend, state, last)


def test_a_memory_grows_to_its_bound(backend):
    state, sizes = None, []
    for frame in frames(BOUND + 3, 16, 16):
        _, state = run(backend, [frame], state)
        sizes.append(backend.state_to_host(state)["memory"].shape[0])
    assert sizes == [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("saved", range(BOUND + 2))
def test_a_state_of_any_size_travels_over_the_host(backend, saved):
    video = frames(BOUND + 4, 32, 16, seed=3)
    state = start(backend, video[0])
    if saved:
        _, state = run(backend, video[:saved], state)
    arrays = {name: each.copy() for name, each in backend.state_to_host(state).items()}
    moved = backend.state_from_host(arrays, {"height": 32, "width": 16})
    arrays["near"][:] = 7  # the state owns its memory
    found, last = run(backend, video[saved:], moved)
    for seen, wanted in zip(found, expected(video)[0][saved:], strict=True):
        check_arrays(seen, wanted)
    check_state(backend, last, expected(video)[1])


def test_a_graph_that_grows_beyond_its_bound_is_refused(tmp_path):
    backend = open_backend(make_bundle(tmp_path / "endless.vis", bounded=False), "cpu", threads=1)
    _, state = run(backend, frames(BOUND, 16, 16))
    with pytest.raises(EngineError, match=r"'next_memory': size 'memory' \(seen: 4; expected: 0 to 3\)"):
        run(backend, frames(1, 16, 16), state)
    check_state(backend, state, expected(frames(BOUND, 16, 16))[1])


def test_a_graph_that_gives_a_state_of_another_size_is_refused(tmp_path):
    backend = open_backend(make_bundle(tmp_path / "wrong.vis", sized=False), "cpu", threads=1)
    with pytest.raises(EngineError, match=r"'next_near' \(seen: \[3, 4, 8\]; expected: .*height/8.* height 16"):
        run(backend, frames(1, 16, 32))


@pytest.mark.parametrize(
    ("sizes", "spoil", "message"),
    [
        ({"height": 48, "width": 32}, lambda a: None, r"'near'.*seen: \[3, 4, 4\]; expected: .*height 48, width 32"),
        ({"height": 32, "width": 32}, lambda a: a.update(memory=np.zeros((4, 3), "f4")), r"'memory'.*4.*0 to 3"),
        ({"height": 32, "width": 32}, lambda a: a.update(memory=np.zeros(3, "f4")), r"'memory'.*seen: \[3\]"),
        ({"height": 32, "width": 32}, lambda a: a.update(memory=np.zeros((2, 4), "f4")), r"'memory'.*seen: \[2, 4\]"),
        ({"height": 32, "width": 32}, lambda a: a.update(peak=np.zeros(3, "f4")), "'peak'.*float32.*bfloat16"),
        ({"height": 32, "width": 32}, lambda a: a.pop("memory"), "memory"),
    ],
)
def test_a_saved_state_that_does_not_fit_is_refused(backend, sizes, spoil, message):
    _, state = run(backend, frames(2, 32, 32))
    arrays = backend.state_to_host(state)
    spoil(arrays)
    with pytest.raises(StreamError, match=message):
        backend.state_from_host(arrays, sizes)


@pytest.mark.parametrize(("height", "width"), [(24, 32), (16, 1040), (0, 16)])
def test_a_frame_beyond_the_range_starts_no_state(backend, height, width):
    with pytest.raises(EngineError, match="16 to 1024, multiples of 16"):
        start(backend, np.zeros((1, 3, height, width), np.float32))
