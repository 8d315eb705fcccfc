"""Equal operators in place of those that TensorRT for RTX cannot build.

TensorRT for RTX 1.7 parses NonZero only with a plugin that its packages do not contain, and has no kernel for
NonMaxSuppression. TensorRT itself has both, and ONNX Runtime computes both faster than the replacements, so bundles
keep the standard operators and the replacement is made in a copy for the builder.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import NoReturn

import onnx
from onnx import helper, inliner, numpy_helper, parser

from visdeploy.errors import ExportError

DOMAIN = "visdeploy.rtx"
_LEAST_OPSET = 18
"""The axes of reductions are an input from here on."""
_LARGEST = 1 << 24
"""Numbers up to here are exact in float32, the type of the keys that TopK sorts."""

# Positions in ascending order: TopK with the number of positions, over keys that descend from the first row on.
_POSITIONS = """
<opset_import: ["" : $opset, "visdeploy.rtx" : 1], domain: "visdeploy.rtx">
Positions (given) => (rows) {
    mask = Cast <to = 9> (given)
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    none = Constant <value = float {0}> ()
    sizes = Shape (mask)
    size = Squeeze (sizes)
    index = Range (zero, size, one)
    descending = Sub (size, index)
    key = Cast <to = 1> (descending)
    keys = Where (mask, key, none)
    ones = Cast <to = 7> (mask)
    count = ReduceSum <keepdims = 1> (ones)
    found, places = TopK (keys, count)
    axis = Constant <value = int64[1] {0}> ()
    rows = Unsqueeze (places, axis)
}
"""

# Greedy suppression as a fixed point: a box stays if no better box that stays overlaps it. Starting from all boxes,
# every round settles at least one box more, and in practice the rounds are as many as the longest chain of boxes that
# each overlap the next. Boxes are sorted by score first, so that better ones have lower positions.
_SUPPRESSED = """
<opset_import: ["" : $opset, "visdeploy.rtx" : 1], domain: "visdeploy.rtx">
Suppressed (boxes, scores, threshold) => (selected) {
    all = Constant <value = int64[1] {-1}> ()
    line = Reshape (scores, all)
    sizes = Shape (line)
    ranked, order = TopK (line, sizes)
    four = Constant <value = int64[2] {-1, 4}> ()
    table = Reshape (boxes, four)
    sorted = Gather <axis = 0> (table, order)
    two = Constant <value = int64[3] {-1, 2, 2}> ()
    corners = Reshape (sorted, two)
    axis1 = Constant <value = int64[1] {1}> ()
    low = ReduceMin <keepdims = 0> (corners, axis1)
    high = ReduceMax <keepdims = 0> (corners, axis1)
    axis0 = Constant <value = int64[1] {0}> ()
    low_a = Unsqueeze (low, axis1)
    low_b = Unsqueeze (low, axis0)
    high_a = Unsqueeze (high, axis1)
    high_b = Unsqueeze (high, axis0)
    begin = Max (low_a, low_b)
    end = Min (high_a, high_b)
    side = Sub (end, begin)
    none = Constant <value = float {0}> ()
    extent = Max (side, none)
    axis2 = Constant <value = int64[1] {2}> ()
    shared = ReduceProd <keepdims = 0> (extent, axis2)
    own = Sub (high, low)
    area = ReduceProd <keepdims = 0> (own, axis1)
    area_a = Unsqueeze (area, axis1)
    area_b = Unsqueeze (area, axis0)
    both = Add (area_a, area_b)
    union = Sub (both, shared)
    overlap = Div (shared, union)
    over = Greater (overlap, threshold)
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    size = Squeeze (sizes)
    rank = Range (zero, size, one)
    rank_a = Unsqueeze (rank, axis1)
    rank_b = Unsqueeze (rank, axis0)
    better = Less (rank_b, rank_a)
    filled = Greater (shared, none)
    meets = And (over, filled)
    beats = And (meets, better)
    weights = Cast <to = 1> (beats)
    half = Constant <value = float {0.5}> ()
    unit = Constant <value = float {1}> ()
    start = Expand (unit, sizes)
    always = Constant <value = bool {1}> ()
    limit = Add (size, one)
    stays = Loop (limit, always, start) <body = rounds (int64 i, bool more, float[n] now) =>
        (bool changed, float[n] next) {
        column = Unsqueeze (now, axis1)
        product = MatMul (weights, column)
        hits = Squeeze (product, axis1)
        clear = Less (hits, half)
        next = Cast <to = 1> (clear)
        difference = Sub (next, now)
        distance = Abs (difference)
        total = ReduceSum <keepdims = 0> (distance)
        changed = Greater (total, half)
    }>
    keep = Greater (stays, half)
    places = visdeploy.rtx.Positions (keep)
    kept = Squeeze (places, axis0)
    rows = Gather <axis = 0> (order, kept)
    rows_b = Unsqueeze (rows, axis1)
    zeros = Sub (rows_b, rows_b)
    selected = Concat <axis = 1> (zeros, zeros, rows_b)
}
"""


def for_rtx(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose NonZero and NonMaxSuppression nodes are equal standard operators.

    Nodes inside functions remain: our functions are replaced by plugins as a whole.

    Args:
        model: A model of opset 18 or higher with its weights inside, below 2 GB. NonZero must have an input of one
            dimension with at most 16,777,216 elements. NonMaxSuppression must be for one class of one image, without
            a score threshold, and its number of boxes must not be limited.

    Raises:
        ExportError: The opset is lower, or a node has another form.
    """
    opset = next((each.version for each in model.opset_import if not each.domain), 0)
    if opset < _LEAST_OPSET:
        _refuse("a model", f"opset {opset}", f"opset {_LEAST_OPSET} or higher")
    copy = onnx.shape_inference.infer_shapes(model)
    constants, ranks = _constants(copy.graph), _ranks(copy.graph)
    for node in copy.graph.node:
        if node.domain:
            continue
        if node.op_type == "NonZero":
            _check_positions(node, ranks)
            node.op_type, node.domain = "Positions", DOMAIN
        elif node.op_type == "NonMaxSuppression":
            _check_suppression(node, constants)
            inputs = [node.input[0], node.input[1], node.input[3]]
            node.CopyFrom(helper.make_node("Suppressed", inputs, node.output, name=node.name, domain=DOMAIN))
    copy.functions.extend(
        parser.parse_function(Template(text).substitute(opset=opset)) for text in (_POSITIONS, _SUPPRESSED)
    )
    copy.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return inliner.inline_selected_functions(copy, [(DOMAIN, name) for name in ("Suppressed", "Positions")])


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    made = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    return {each.name: each for each in graph.initializer} | made


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    tensors = {each.name: each.type.tensor_type for each in (*graph.input, *graph.value_info)}
    return {name: len(each.shape.dim) for name, each in tensors.items() if each.HasField("shape")}


def _check_positions(node: onnx.NodeProto, ranks: Mapping[str, int]) -> None:
    rank = ranks.get(node.input[0])
    if rank != 1:
        _refuse(f"node {node.name}, NonZero,", f"an input of {rank} dimensions", "one dimension, known without running")


def _check_suppression(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    names = [*node.input, "", ""][:5]
    limit = constants.get(names[2])
    largest = int(numpy_helper.to_array(limit).item()) if limit is not None else None
    centred = any(each.name == "center_point_box" and each.i for each in node.attribute)
    if largest is None or largest < _LARGEST or not names[3] or names[4] or centred:
        _refuse(
            f"node {node.name}, NonMaxSuppression,",
            f"limit {largest}, inputs {list(node.input)}, centred boxes: {centred}",
            "corners of boxes, an IoU threshold, no score threshold, a limit that is never reached",
        )


def _refuse(what: str, seen: str, expected: str) -> NoReturn:
    raise ExportError(
        f"{what} cannot be rewritten for TensorRT for RTX",
        seen=seen,
        expected=expected,
        hint="Build the engine with TensorRT, which has these operators.",
    )
