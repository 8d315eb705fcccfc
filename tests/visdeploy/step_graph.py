"""A small but real bundle with VISOLO's interface: detections of its own making, a memory that changes them."""

from pathlib import Path

import numpy as np

from visdeploy.bundle import Bundle, write_bundle

CLASSES = ("red", "green", "blue", "pale")
HEIGHT, WIDTH, CELL = 32, 48, 8
CELLS = (HEIGHT // CELL) * (WIDTH // CELL)
SLOTS, SIZE = 3, 6
PROOF = {"cell_scores": "proof"}

# Every cell of an 8x8 grid is described by its mean colour plus a share of the memory's; strong cells are detections,
# their masks are the pixels of like colour. The memory shifts by one slot per frame, `step` counts.
_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
step (float[1, 3, height, width] frame, float[SLOTS, 3, CELLS] mem, int64[1] step)
  => (float[n] scores, int64[n] cells, float[n, 4] class_scores, uint8[n, height, width] masks, float[n, n] overlaps,
      float[n, 6] query, float[n, 6] reference, float[CELLS] cell_scores,
      float[SLOTS, 3, CELLS] next_mem, int64[1] next_step)
<float[3, 4] to_class = {0.6, -0.3, -0.3, 0.1, -0.3, 0.6, -0.3, 0.1, -0.3, -0.3, 0.6, 0.1},
 float[3, 6] to_query = {1.2, -0.9, -0.9, 0.4, 0.0, 0.2, -0.9, 1.2, -0.9, 0.0, 0.4, 0.2,
                          -0.9, -0.9, 1.2, 0.2, 0.0, 0.4},
 float share = {0.15}, float bar = {0.7}, float alike = {2.0}, int64[1] zero = {0}, int64[1] one = {1},
 int64[1] slots = {SLOTS}, int64[2] flat = {3, -1}, int64[3] slot_shape = {1, 3, CELLS}>
{
  pooled = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (frame)
  cells_now = Reshape (pooled, slot_shape)
  past = ReduceMean <keepdims = 1> (mem, zero)
  past_share = Mul (past, share)
  features = Add (cells_now, past_share)
  feature_rows = Reshape (features, flat)
  by_cell = Transpose <perm = [1, 0]> (feature_rows)
  cell_logits = ReduceMax <keepdims = 0> (by_cell, one)
  cell_scores = Sigmoid (cell_logits)
  strong = GreaterOrEqual (cell_scores, bar)
  found = NonZero (strong)
  found_cells = Squeeze (found, zero)
  found_scores = Gather (cell_scores, found_cells)
  count = Shape (found_cells)
  scores, order = TopK (found_scores, count)
  cells = Gather (found_cells, order)
  picked = Gather (by_cell, cells)
  class_logits = MatMul (picked, to_class)
  class_scores = Sigmoid (class_logits)
  query = MatMul (picked, to_query)
  reference = Identity (query)
  pixels = Reshape (frame, flat)
  likeness = MatMul (picked, pixels)
  inside = Greater (likeness, alike)
  inside_float = Cast <to = 1> (inside)
  turned = Transpose <perm = [1, 0]> (inside_float)
  overlaps = MatMul (inside_float, turned)
  inside_bytes = Cast <to = 2> (inside)
  frame_shape = Shape <start = 2> (frame)
  mask_shape = Concat <axis = 0> (count, frame_shape)
  masks = Reshape <allowzero = 1> (inside_bytes, mask_shape)
  extended = Concat <axis = 0> (mem, cells_now)
  last = Add (slots, one)
  next_mem = Slice (extended, one, last, zero)
  next_step = Add (step, one)
}
"""


def model_bytes() -> bytes:
    """Return the graph as a serialised ONNX model."""
    import onnx.checker
    import onnx.parser

    model = onnx.parser.parse_model(_GRAPH.replace("SLOTS", str(SLOTS)).replace("CELLS", str(CELLS)))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def fields():
    """Return the manifest of the bundle, without schema version and files."""
    outputs = [
        ("scores", "float32", ["n"]), ("cells", "int64", ["n"]), ("class_scores", "float32", ["n", 4]),
        ("masks", "uint8", ["n", "height", "width"]), ("overlaps", "float32", ["n", "n"]),
        ("query", "float32", ["n", SIZE]), ("reference", "float32", ["n", SIZE]), ("cell_scores", "float32", [CELLS]),
    ]  # fmt: skip
    side = {"minimum": 16, "maximum": 1024, "multiple": CELL}
    return {
        "method": "visolo",
        "variant": "test",
        "classes": list(CLASSES),
        "provenance": {
            "checkpoint": "none", "checkpoint_sha256": "0" * 64, "created": "2026-01-01T00:00:00+00:00",
            "visdeploy": "0", "torch": "0", "onnx": "0",
        },
        "preprocessing": {
            "channel_order": "rgb", "mean": [100.0, 110.0, 120.0], "std": [60.0, 55.0, 50.0],
            "height": HEIGHT, "width": WIDTH,
        },
        "window": {"mode": "online"},
        "opset": 20,
        "dims": {
            "height": side | {"typical": HEIGHT}, "width": side | {"typical": WIDTH},
            "n": {"minimum": 0, "typical": 4, "maximum": CELLS},
        },
        "inputs": [{"name": "frame", "dtype": "float32", "shape": [1, 3, "height", "width"], "role": "frames"}],
        "outputs": [
            {"name": n, "dtype": d, "shape": s, "role": PROOF.get(n, "decode")} for n, d, s in outputs
        ],
        "state": [
            {"input": "mem", "output": "next_mem", "dtype": "float32", "shape": [SLOTS, 3, CELLS]},
            {"input": "step", "output": "next_step", "dtype": "int64", "shape": [1]},
        ],
        "decode": {"overlap_threshold": 0.5},
        "tracking": {"affinity_threshold": 0.1, "max_lost": 64},
    }  # fmt: skip


def make_bundle(path: Path, *, model: bytes | None = None, **changes) -> Bundle:
    """Write the bundle; `changes` replace manifest fields."""
    files = {
        "model.onnx": model_bytes() if model is None else model,
        "selftest.npz": b"not needed here",
        "certificate.json": b"{}",
    }
    return write_bundle(path, fields() | changes, files)


def clip(frames: int, seed: int = 0, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Return coloured boxes that move, disappear and return, uint8 `[frames, height, width, 3]`."""
    rng = np.random.default_rng(seed)
    height, width = size
    video = rng.integers(60, 90, (frames, height, width, 3), dtype=np.uint8)
    for k in range(4):
        colour = np.full(3, 40) + 200 * np.eye(3, dtype=int)[k % 3]
        y, x, vy, vx = rng.integers(0, height - 20), rng.integers(0, width - 30), *rng.integers(-2, 3, 2)
        for t in range(frames):
            if (t + 5 * k) % 11 > 2:
                top, left = (y + vy * t) % (height - 18), (x + vx * t) % (width - 24)
                video[t, top : top + 18, left : left + 24] = colour
    return video
