"""Graphs in which every int64 is computed with 32 bits, as engines without 64-bit integers do."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.visdeploy_export.pipelines import in_onnx_runtime
from visdeploy.bundle import Bundle

_ENDS = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)
"""Ends of a Slice that mean the last or first element; engines limit constants to their range."""


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without functions that wraps every int64 result to 32 bits."""
    model = onnx.shape_inference.infer_shapes(model)
    values = (*model.graph.value_info, *model.graph.output, *model.graph.input)
    wide = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.INT64}
    for constant in _constants(model.graph):
        array = numpy_helper.to_array(constant)
        if array.dtype == np.int64:
            limits = np.iinfo(np.int32)
            beyond = (array < limits.min) | (array > limits.max)
            assert np.isin(array[beyond], _ENDS).all(), f"{constant.name} is {array[beyond][:3]}"
            clipped = numpy_helper.from_array(np.clip(array, limits.min, limits.max), constant.name)
            constant.CopyFrom(clipped)
    nodes = []
    for node in model.graph.node:
        results = [name for name in node.output if name in wide]
        for index, name in enumerate(node.output):
            if name in results:
                node.output[index] = f"{name}/wide"
        nodes.append(node)
        for name in results:
            nodes.append(helper.make_node("Cast", [f"{name}/wide"], [f"{name}/narrow"], to=TensorProto.INT32))
            nodes.append(helper.make_node("Cast", [f"{name}/narrow"], [name], to=TensorProto.INT64))
    kept = [node.SerializeToString() for node in nodes]
    del model.graph.node[:]
    for text in kept:
        model.graph.node.add().ParseFromString(text)
    return model


def _constants(graph: onnx.GraphProto) -> list[TensorProto]:
    attributes = (a for node in graph.node if node.op_type == "Constant" for a in node.attribute)
    return [*graph.initializer, *(a.t for a in attributes if a.type == onnx.AttributeProto.TENSOR)]


def compare_widths(bundle: Bundle, frames: NDArray[np.uint8]) -> Sequence[str]:
    """Return the outputs and states that differ between 64 and 32 bits, over all steps of a clip."""
    model = onnx.inliner.inline_local_functions(onnx.load(bundle.model_path))
    pipeline = in_onnx_runtime(bundle)
    wide, narrow = (_session(each) for each in (model, narrowed(model)))
    names = [output.name for output in wide.get_outputs()]
    state: dict[str, NDArray[np.generic]] | None = None
    differing: list[str] = []
    for step in pipeline.steps(frames):
        if state is None:
            backend = pipeline.backend
            state = dict(backend.state_to_host(backend.initial_state(backend.bind_inputs(step.inputs))))
        fed = {**step.inputs, **state}
        found = [dict(zip(names, session.run(names, fed), strict=True)) for session in (wide, narrow)]
        differing += [
            n for n in names if not np.array_equal(found[0][n], found[1][n], equal_nan=found[0][n].dtype.kind == "f")
        ]
        state = {name: found[0][f"next_{name}"] for name in state}
    return sorted(set(differing))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # both graphs as they are written: other fusions around the casts would round differently
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
