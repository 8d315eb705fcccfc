"""A small graph whose state has a size of the frames' and one that grows, and the same in NumPy."""

from pathlib import Path

import numpy as np

from tests.visdeploy import step_graph
from visdeploy.bundle import Bundle

BOUND = 3
HALF = 0x3F00
"""The bits of 0.5 in bfloat16."""

# `near` is a running mean of the frame at a stride of 8, `memory` the mean colours of the last frames, `peak` the
# largest colour so far. `total` is the sum of the memory, which is empty at first.
_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
step (float[1, 3, height, width] frame, float[3, rows, columns] near, float[memory, 3] memory, bfloat16[3] peak,
      int64[1] step)
  => (float[3] total, float[3, rows, columns] near_copy, float[3, next_rows, next_columns] next_near,
      float[next_memory, 3] next_memory, bfloat16[3] next_peak, int64[1] next_step)
<float half = {0.5}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] first = {FIRST}, int64[1] end = {1000},
 int64[2] image = {2, 3}>
{
  total = ReduceSum <keepdims = 0> (memory, zero)
  pooled = AveragePool <kernel_shape = [STRIDE, STRIDE], strides = [STRIDE, STRIDE]> (frame)
  now = Squeeze (pooled, zero)
  old_half = Mul (near, half)
  now_half = Mul (now, half)
  near_copy = Identity (near)
  next_near = MERGE
  colour = ReduceMean <keepdims = 0> (frame, image)
  extended = Concat <axis = 0> (memory, colour)
  next_memory = Slice (extended, first, end, zero)
  peak_float = Cast <to = 1> (peak)
  colour_flat = Squeeze (colour, zero)
  peak_now = Max (peak_float, colour_flat)
  next_peak = Cast <to = 16> (peak_now)
  next_step = Add (step, one)
}
"""


def model_bytes(*, bounded: bool = True, sized: bool = True) -> bytes:
    """Return the graph; `bounded` limits the memory, `sized` gives the next `near` the size of the frames."""
    import onnx.checker
    import onnx.parser

    changes = {
        "FIRST": str(-BOUND if bounded else 0),
        "STRIDE": str(8 if sized else 4),
        "MERGE": "Add (old_half, now_half)" if sized else "Identity (now)",
    }
    text = _GRAPH
    for word, value in changes.items():
        text = text.replace(word, value)
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def fields():
    """Return the manifest of the bundle, without schema version and files."""
    side = {"minimum": 16, "typical": 32, "maximum": 1024, "multiple": 16}
    state = [
        ("near", "float32", [3, "height/8", "width/8"], 0), ("memory", "float32", ["memory", 3], 0),
        ("peak", "bfloat16", [3], 0.5), ("step", "int64", [1], -1),
    ]  # fmt: skip
    return step_graph.fields() | {
        "dims": {"height": side, "width": side, "memory": {"minimum": 0, "typical": BOUND, "maximum": BOUND}},
        "inputs": [{"name": "frame", "dtype": "float32", "shape": [1, 3, "height", "width"], "role": "frames"}],
        "outputs": [
            {"name": "total", "dtype": "float32", "shape": [3], "role": "decode"},
            {"name": "near_copy", "dtype": "float32", "shape": [3, "height/8", "width/8"], "role": "decode"},
        ],
        "state": [{"input": n, "output": f"next_{n}", "dtype": d, "shape": s, "initial": i} for n, d, s, i in state],
    }


def make_bundle(path: Path, **options) -> Bundle:
    """Write the bundle; see `model_bytes` for the options."""
    return step_graph.make_bundle(path, model=model_bytes(**options), **fields())


def frames(count: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """Return frames constant in every 8x8 cell. Cells and their mean are small integers, so every step is exact."""
    rng = np.random.default_rng(seed)
    rows, columns = height // 8, width // 8
    signs = rng.permuted(np.tile(np.float32([1, -1]), (count, 3, rows * columns // 2)), axis=2)
    cells = signs.reshape(count, 1, 3, rows, columns) + rng.integers(0, 8, (count, 1, 3, 1, 1)).astype(np.float32)
    return [np.kron(each, np.ones((8, 8), np.float32)) for each in cells]


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def expected(video: list[np.ndarray]):
    """Return the outputs of every step, and the state after the last one."""
    near = np.zeros((3, *(side // 8 for side in video[0].shape[2:])), np.float32)
    memory, peak, outputs = np.zeros((0, 3), np.float32), np.full(3, 0.5, np.float32), []
    for frame in video:
        outputs.append({"total": memory.sum(0), "near_copy": near})
        colour = frame[0].mean((1, 2))
        near = 0.5 * near + 0.5 * frame[0, :, ::8, ::8]
        memory, peak = np.concatenate([memory, colour[None]])[-BOUND:], np.maximum(peak, colour)
    return outputs, {"near": near, "memory": memory, "peak": peak, "step": np.array([len(video) - 1])}


def start(backend, frame):
    """Return the state before the first frame."""
    return backend.initial_state(backend.bind_inputs({"frame": frame}))


def run(backend, video, state=None):
    """Return the outputs of all steps, and the last state."""
    state, found = start(backend, video[0]) if state is None else state, []
    for frame in video:
        outputs, state = backend.run({"frame": frame}, state)
        found.append(outputs)
    return found, state


def check_state(backend, state, wanted):
    host = backend.state_to_host(state)
    host["peak"] = bfloat16(host["peak"])
    check_arrays(host, wanted)


def check_arrays(found, wanted):
    assert {name: each.shape for name, each in found.items()} == {name: each.shape for name, each in wanted.items()}
    for name, value in wanted.items():
        assert found[name].tolist() == value.tolist(), name
