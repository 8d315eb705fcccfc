"""A small but real bundle with VIShv's interface: the embedding of a pixel is its colour, at a quarter of the size."""

from pathlib import Path

from tests.visdeploy.clip_graph import CLASSES, LENGTH, STRIDE
from tests.visdeploy.step_graph import fields
from visdeploy.bundle import Bundle, write_bundle

_GRAPH = f"""
<ir_version: 10, opset_import: ["" : 20]>
clip (float[{LENGTH}, 3, height, width] frames) => (
  float[{LENGTH}, 3, h, w] embeddings, float[{LENGTH}, 3, h, w] bandwidths, float[{LENGTH}, h, w] seediness,
  float[{LENGTH}, 4, h, w] class_logits, float[{LENGTH}, h, w] foreground_logits)
<int64[1] one = {{1}}, float zero = {{0.0}}, float ten = {{10.0}}, float half = {{0.4}}>
{{
  embeddings = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (frames)
  nothing = Mul (embeddings, zero)
  bandwidths = Add (nothing, ten)
  seediness = ReduceMax <keepdims = 0> (embeddings, one)
  foreground_logits = Sub (seediness, half)
  back_3d = Mul (seediness, zero)
  background = Unsqueeze (back_3d, one)
  class_logits = Concat <axis = 1> (background, embeddings)
}}
"""


def make_vishv_bundle(path: Path, **changes: object) -> Bundle:
    """Write the bundle. The classes are those of `clip_graph.CLASSES`."""
    import onnx.checker
    import onnx.parser

    model = onnx.parser.parse_model(_GRAPH)
    onnx.checker.check_model(model, full_check=True)
    sides = ["height/4", "width/4"]
    outputs = [
        {"name": "embeddings", "shape": [LENGTH, 3, *sides]},
        {"name": "bandwidths", "shape": [LENGTH, 3, *sides]},
        {"name": "seediness", "shape": [LENGTH, *sides], "measure": "vishv.clusters"},
        {"name": "class_logits", "shape": [LENGTH, 4, *sides]},
        {"name": "foreground_logits", "shape": [LENGTH, *sides]},
    ]
    manifest = fields() | {
        "method": "vishv",
        "classes": list(CLASSES),
        "dims": {name: fields()["dims"][name] for name in ("height", "width")},
        "inputs": [{"name": "frames", "dtype": "float32", "shape": [LENGTH, 3, "height", "width"], "role": "frames"}],
        "outputs": [each | {"dtype": "float32", "role": "decode"} for each in outputs],
        "state": [],
        "window": {"mode": "clip", "length": LENGTH, "stride": STRIDE, "short_video": "repeat_first_frame"},
        "decode": {"min_seediness": 0.6},
        "tracking": {},
    }
    manifest["preprocessing"] = manifest["preprocessing"] | {"mean": [0.0] * 3, "std": [255.0] * 3}
    files = {
        "model.onnx": model.SerializeToString(),
        "selftest.npz": b"not needed here",
        "certificate.json": b"{}",
    }
    return write_bundle(path, manifest | changes, files)
