"""The manifest: every inconsistency is an error that names the field."""

import json

import pytest

from tests.visdeploy.step_graph import fields
from visdeploy.errors import BundleError
from visdeploy.manifest import Manifest, Tolerance, Tolerances

FRAME, DIMS = fields()["inputs"][0], fields()["dims"]
SIZE = {"name": "size", "dtype": "int64", "shape": [2], "role": "size"}


def read(**changes):
    return Manifest.from_json(json.dumps(fields() | {"files": {}, "schema_version": 2} | changes))


def changed(kind, index=0, **values):
    tensors = fields()[kind]
    tensors[index] = tensors[index] | values
    return {kind: tensors}


def processed(**values):
    return {"preprocessing": fields()["preprocessing"] | values}


LONG = {
    "window": {"mode": "clip", "length": 50_000},
    "dims": DIMS | {"n": DIMS["n"] | {"maximum": 50_000}},
    **processed(height=512, width=512),
}


def test_the_tensors_by_their_roles():
    manifest = read(inputs=[FRAME, SIZE])
    assert (manifest.frames.name, manifest.size.name) == ("frame", "size")
    assert "cell_scores" in manifest.output_names()
    assert set(manifest.output_names()) - set(manifest.output_names(proof=False)) == {"cell_scores"}
    assert read().size is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [FRAME, FRAME | {"name": "more"}]}, "2 inputs of the role 'frames'"),
        ({"inputs": [SIZE]}, "0 inputs of the role 'frames'"),
        ({"inputs": [FRAME, SIZE, SIZE | {"name": "b"}]}, "2 of 'size'"),
        ({"inputs": [FRAME, SIZE | {"dtype": "int32"}]}, r"'size' of the role 'size' is int32 \[2\], not int64 \[2\]"),
        (changed("inputs", role="decode"), "input 'frame' has the role 'decode', not frames or size"),
        (changed("outputs", role="frames"), "output 'scores' has the role 'frames', not decode or proof"),
        (changed("outputs", role="weather"), "outputs.0.role"),
        (changed("inputs", shape=[2, 3, "height", "width"]), r"contradicts the window: expected \[1 or a symbol"),
        (changed("inputs", shape=[1, 3, "height"]), "contradicts the window"),
        (changed("outputs", shape=["unheard"]), "dims: no range of 'unheard', a size of 'scores'"),
        (changed("inputs", shape=[1, 3, "unheard", "width"]), "dims: no range of 'unheard', a size of 'frame'"),
        (changed("state", shape=["slots", 3, 24]), "dims: no range of 'slots', a size of 'mem'"),
        (
            {"dims": fields()["dims"] | {"z": {"minimum": 1, "typical": 1, "maximum": 1}}},
            "'z' is not a size of any tensor",
        ),
        ({"dims": fields()["dims"] | {"n": {"minimum": 3, "typical": 1, "maximum": 9}}}, "dims.n.*ascending order"),
        (changed("state", output="next_step"), "state 'mem' is called 'next_step', not 'next_mem'"),
        (changed("outputs", name="cells"), "one output name is listed twice"),
        ({"size_multiple": 8}, "size_multiple"),
        (changed("inputs", dtype="float16"), r"'frame' of the role 'frames' is float16"),
        (changed("inputs", shape=[1, 9, "height", "width"]), r"not float32 \[frames, 3, height, width\]"),
        (changed("inputs", shape=[1, 3, "height", "width*2"]), r"not float32 \[frames, 3, height, width\]"),
        (changed("state", shape=["k*2"]) | {"dims": DIMS | {"k": DIMS["n"]}}, "'k' is used in expressions only"),
        (changed("state", shape=["ceil+n"]), "is not an expression over sizes"),
        (changed("state", shape=["k\uff42"]), "state.0.shape"),
        (changed("state", 1, initial=1e30), "the initial value 1e\\+30 of state 'step' is no int64"),
        ({"dims": DIMS | {"n": {"minimum": 0, "typical": 1, "maximum": 2**40}}}, "dims.n.maximum"),
        ({"files": {"a\0b": {"sha256": "0" * 64, "size": 1}}}, "control characters"),
        ({"dims": DIMS | {"n": DIMS["n"] | {"multiple": 2**40}}}, "dims.n.multiple"),
        (changed("outputs", shape=[2**40]), "outputs.0.shape"),
        (changed("state", shape=[2**20, 3, 2**20]), "'mem' has 3298534883328 elements or more, at most"),
        (changed("state", shape=["height*100000", "width*1000"]), "'mem' has .* elements or more, at most"),
        (processed(height=2**31), "preprocessing.height.*less than or equal to 65535"),
        (processed(width=10**6), "preprocessing.width.*less than or equal to 65535"),
        (processed(pad_divisor=10**9), "preprocessing.pad_divisor.*less than or equal to 65535"),
        (processed(height=30_000), "preprocessing: height 30000 with padding is outside its range, 16 to 1024"),
        (processed(width=10), "preprocessing: width 10 with padding is outside its range, 16 to 1024"),
        (processed(pad_divisor=4096), "preprocessing: height 4096 with padding is outside its range"),
        (
            processed(resize="shortest_edge", height=4000, width=5000),
            "an edge of 4000 with padding is outside",
        ),
        (processed(resize="shortest_edge", pad_divisor=2048), "an edge of 2048 with padding is outside its range"),
        ({"window": {"mode": "clip", "length": 10**6}}, "window.length"),
        (changed("inputs", shape=["n", 3, "height", "width"]) | LONG, "'frame' has .* elements or more, at most"),
        (changed("outputs", dtype="float8"), "outputs.0.dtype"),
        (changed("outputs", measure="Not A Name"), "outputs.0.measure"),
        ({"classes": ["a", "a"]}, "one class name is listed twice"),
        ({"precision": "fp64"}, "precision"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(BundleError, match=message):
        read(**changes)


@pytest.mark.parametrize(
    ("version", "message"), [(1, "older schema.*Export the bundle again"), (3, "newer schema.*Install")]
)
def test_other_schemas_say_what_to_do(version, message):
    with pytest.raises(BundleError, match=message):
        read(schema_version=version)


def test_tolerance_by_engine_and_precision():
    loose = Tolerance(atol=0.1)
    table = {"default": {}, "engines": [{"engine": "tensorrt", "precision": "fp16", "tolerance": loose.model_dump()}]}
    manifest = read(tolerance=table)
    assert manifest.tolerance.of("tensorrt", "fp16") == loose
    for other in (("tensorrt", "fp32"), ("onnxruntime", "fp16")):
        assert manifest.tolerance.of(*other) == Tolerance()
    assert read().tolerance == Tolerances()
    with pytest.raises(BundleError, match="one pair of engine and precision is listed twice"):
        read(tolerance=table | {"engines": table["engines"] * 2})


def test_bfloat16_is_a_type():
    assert read(**changed("state", dtype="bfloat16")).state[0].dtype == "bfloat16"
