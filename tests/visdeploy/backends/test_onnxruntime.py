"""The ONNX Runtime backend: steps, state, contradictions between graph and manifest, devices."""

import numpy as np
import pytest

from tests.visdeploy.step_graph import CELLS, HEIGHT, SLOTS, WIDTH, fields, make_bundle, model_bytes
from visdeploy.backends import open_backend
from visdeploy.errors import BundleError, ConfigError, EngineError, StreamError

ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def backend(bundle):
    return open_backend(bundle, "cpu", threads=1)


FRAME = fields()["inputs"][0]
SIZES = {"height": HEIGHT, "width": WIDTH}


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.normal(0, 2, (count, 1, 3, HEIGHT // 8, WIDTH // 8)).astype(np.float32)
    return [{"frame": np.kron(block, np.ones((8, 8), np.float32))} for block in blocks]


def test_a_step_equals_a_plain_session(backend, bundle):
    session = ort.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    memory = {"mem": np.zeros((SLOTS, 3, CELLS), np.float32), "step": np.zeros(1, np.int64)}
    state = backend.initial_state(SIZES)
    for inputs in frames(6):
        wanted = dict(zip(names, session.run(names, inputs | memory), strict=True))
        memory = {"mem": wanted.pop("next_mem"), "step": wanted.pop("next_step")}
        found, state = backend.run(inputs, state)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            assert (found[name].dtype, found[name].tolist()) == (value.dtype, value.tolist()), name
        assert len(found["scores"]) > 0
    host = backend.state_to_host(state)
    assert host["step"].tolist() == [6]
    assert np.array_equal(host["mem"], memory["mem"])


def test_a_step_is_pure(backend):
    first, second = frames(2)
    _, state = backend.run(first, backend.initial_state(SIZES))
    before = backend.state_to_host(state)
    a, next_a = backend.run(second, state)
    b, next_b = backend.run(second, state)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert all(np.array_equal(v, backend.state_to_host(state)[k]) for k, v in before.items())
    assert all(np.array_equal(v, backend.state_to_host(next_b)[k]) for k, v in backend.state_to_host(next_a).items())


def test_no_detection_at_all(backend):
    outputs, _ = backend.run({"frame": np.full((1, 3, HEIGHT, WIDTH), -9, np.float32)}, backend.initial_state(SIZES))
    assert (outputs["masks"].shape, outputs["overlaps"].shape) == ((0, HEIGHT, WIDTH), (0, 0))


def test_the_state_travels_over_the_host(backend):
    _, state = backend.run(frames(1)[0], backend.initial_state(SIZES))
    arrays = backend.state_to_host(state)
    moved = backend.state_from_host(arrays, SIZES)
    arrays["mem"][:] = 7  # the state owns its memory
    a, _ = backend.run(frames(2)[1], state)
    b, _ = backend.run(frames(2)[1], moved)
    assert all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.pop("step"), "does not match the graph"),
        (lambda a: a.update(more=a["step"]), "does not match the graph"),
        (lambda a: a.update(mem=a["mem"][:1]), "'mem' does not match"),
        (lambda a: a.update(step=a["step"].astype(np.int32)), "'step' does not match"),
    ],
)
def test_a_wrong_state_is_refused(backend, spoil, message):
    arrays = backend.state_to_host(backend.initial_state(SIZES))
    spoil(arrays)
    with pytest.raises(StreamError, match=message):
        backend.state_from_host(arrays, SIZES)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "wrong inputs"),
        ({"frame": np.zeros((1, 3, HEIGHT, WIDTH))}, "wrong dtype of graph input 'frame'"),
        ({"frame": np.zeros((1, 4, HEIGHT, WIDTH), np.float32)}, "wrong shape of graph input 'frame'"),
        ({"frame": np.zeros((3, HEIGHT, WIDTH), np.float32)}, "wrong shape of graph input 'frame'"),
        ({"frame": np.zeros((1, 3, HEIGHT + 4, WIDTH), np.float32)}, "'height'.*16 to 1024, multiples of 8"),
        ({"frame": np.zeros((1, 3, 8, WIDTH), np.float32)}, "'height'.*seen: 8; expected: 16 to 1024"),
        ({"frame": np.zeros((1, 3, HEIGHT, 1032), np.float32)}, "'width'.*seen: 1032"),
        ({"frame": np.zeros((1, 3, HEIGHT * 2, WIDTH), np.float32)}, "the graph failed"),
    ],
)
def test_wrong_inputs_are_refused(backend, inputs, message):
    with pytest.raises(EngineError, match=message):
        backend.run(inputs, backend.initial_state(SIZES))


def renamed(name):
    return [o | {"name": name} if o["name"] == "cells" else o for o in fields()["outputs"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [FRAME | {"name": "image"}]}, "inputs differ"),
        ({"inputs": [FRAME | {"shape": [1, 3, "height", 48]}]}, "input 'frame'"),
        ({"outputs": renamed("cell")}, "outputs differ"),
        ({"state": fields()["state"][:1]}, "inputs differ"),
        ({"state": [fields()["state"][0] | {"shape": [SLOTS + 1, 3, CELLS]}, fields()["state"][1]]}, "'mem'"),
        ({"state": [fields()["state"][0], fields()["state"][1] | {"dtype": "int32"}]}, "'step'"),
    ],
)
def test_a_graph_that_contradicts_its_manifest_is_refused(tmp_path, changes, message):
    made = make_bundle(tmp_path / "a.vis", **changes)
    with pytest.raises(BundleError, match=message):
        open_backend(made, "cpu")


@pytest.mark.parametrize(
    "spoil", [lambda m: b"", lambda m: b"garbage" * 100, lambda m: m[:300], lambda m: m.replace(b"Sigmoid", b"Sigmund")]
)
def test_what_is_no_graph_is_refused(tmp_path, spoil):
    made = make_bundle(tmp_path / "a.vis", model=spoil(model_bytes()))
    with pytest.raises(BundleError, match="cannot be loaded"):
        open_backend(made, "cpu")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"device": "gpu"}, ConfigError),
        ({"device": "cuda:"}, ConfigError),
        ({"device": "cuda:-1"}, ConfigError),
        ({"device": None}, ConfigError),
        ({"device": "cpu", "threads": 0}, ConfigError),
        ({"device": "cpu", "threads": True}, ConfigError),
    ],
)
def test_wrong_options(bundle, arguments, error):
    with pytest.raises(error):
        open_backend(bundle, **arguments)
