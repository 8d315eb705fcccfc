"""A small but real bundle with DefVIS's interface: three slots that follow colours, shuffled from clip to clip."""

from pathlib import Path

import numpy as np

from tests.visdeploy.step_graph import fields
from visdeploy.bundle import Bundle, write_bundle

CLASSES = ("red", "green", "blue")
HEIGHT, WIDTH = 32, 48
LENGTH, STRIDE = 8, 4

# Slot k of a clip shows the pixels where channel (k + r) mod 3 is strong, with r = how bright the first frame's first
# pixel is: the caller turns the slots by it, so that a slot number means nothing from one clip to the next.
_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
clip (float[FRAMES, 3, height, width] frames) => (float[3, t, 4] class_scores, float[3, t, h, w] mask_logits)
<int64[1] one = {1}, int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}, int64[4] pixel = {1, 1, 1, 1},
 int64[4] origin = {0, 0, 0, 0}, int64[4] axes = {0, 1, 2, 3}, int64[3] channels = {0, 1, 2}, float limit = {0.75},
 float[3, 1, 4] ids = {0.02, 0.9, 0.03, 0.05, 0.02, 0.05, 0.9, 0.03, 0.02, 0.03, 0.05, 0.9}, float turn = {10.0}>
{
  by_channel = Transpose <perm = [1, 0, 2, 3]> (frames)
  pooled = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (by_channel)
  strong = Sub (pooled, limit)
  corner_4d = Slice (frames, origin, pixel, axes)
  corner = Reshape (corner_4d, one)
  turned = Mul (corner, turn)
  shift_float = Round (turned)
  shift = Cast <to = 7> (shift_float)
  moved = Add (channels, shift)
  order = Mod (moved, three)
  mask_logits = Gather (strong, order)
  scores = Gather (ids, order)
  shape = Shape (frames)
  count = Gather (shape, zero)
  repeats = Concat <axis = 0> (one, count, one)
  class_scores = Tile (scores, repeats)
}
"""


def model_bytes(fixed: bool) -> bytes:
    """Return the graph as a serialised ONNX model, for clips of exactly `LENGTH` frames or of any number."""
    import onnx.checker
    import onnx.parser

    model = onnx.parser.parse_model(_GRAPH.replace("FRAMES", str(LENGTH) if fixed else "frames_"))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def make_clip_bundle(path: Path, *, fixed: bool = True, **changes: object) -> Bundle:
    """Write the bundle."""
    first = LENGTH if fixed else "frames"
    manifest = fields() | {
        "method": "defvis",
        "classes": list(CLASSES),
        "dims": {name: fields()["dims"][name] for name in ("height", "width")},
        "inputs": [{"name": "frames", "dtype": "float32", "shape": [first, 3, "height", "width"], "role": "frames"}],
        "outputs": [
            {"name": "class_scores", "dtype": "float32", "shape": [3, first, 4], "role": "decode"},
            {"name": "mask_logits", "dtype": "float32", "shape": [3, first, "height/2", "width/2"], "role": "decode"},
        ],
        "state": [],
        "window": {"mode": "clip", "length": LENGTH, "stride": STRIDE},
        "decode": {"frame_score_threshold": 0.01},
        "tracking": {},
    }
    if not fixed:
        manifest["dims"]["frames"] = {"minimum": 1, "typical": LENGTH, "maximum": LENGTH}
    manifest["preprocessing"] = manifest["preprocessing"] | {"mean": [0.0] * 3, "std": [255.0] * 3}
    files = {"model.onnx": model_bytes(fixed), "selftest.npz": b"not needed here", "certificate.json": b"{}"}
    return write_bundle(path, manifest | changes, files)


def moving(count: int) -> np.ndarray:
    """Return moving red, green and blue squares on a dark background; uint8 `[count, 32, 48, 3]`.

    The first pixel's brightness differs between frames, so that the graph shuffles its slots.
    """
    frames = np.zeros((count, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(count):
        for channel in range(3):
            x, y = (4 + 14 * channel + t // 2) % (WIDTH - 8), 3 + 8 * channel
            frames[t, y : y + 7, x : x + 8, channel] = 255
        frames[t, 0, 0] = (t % 4) * 26
    return frames
