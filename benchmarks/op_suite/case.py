"""Test cases of operators, and the sides that compute them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor

from op_suite.roofline import Work
from op_suite.timing import Call
from visdeploy_plugins.onnx_functions import add_function_bodies, register_schemas

OPSET = 20
DOMAIN = "visdeploy"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An op with inputs, in all forms that can be compared.

    Attributes:
        op: Name of the op.
        setting: Description of the inputs.
        inputs: Map from the name of the ONNX input to the tensor, in order; float32 on the CPU.
        nodes: ONNX nodes that compute `output` from the inputs, including our op.
        ours: Our PyTorch operator.
        eager: Baselines in PyTorch, by name.
        flops: Number of operations of one call.
        baseline_nodes: Baselines as ONNX nodes, also run with our library, by name.
        constants: Names of inputs that are initializers in an exported model.
        single: Names of inputs that are float32 for every value type.
        touched: Share of an input's elements that the op needs, for inputs that are not read in full.
        stock: Name of the implementation that a session without our library runs.
    """

    op: str
    setting: str
    inputs: dict[str, Tensor]
    nodes: list[onnx.NodeProto]
    ours: Callable[[Tensors], Tensor]
    eager: Mapping[str, Callable[[Tensors], Tensor]]
    flops: int
    baseline_nodes: Mapping[str, list[onnx.NodeProto]] = field(default_factory=dict)
    constants: frozenset[str] = frozenset()
    single: frozenset[str] = frozenset()
    touched: Mapping[str, float] = field(default_factory=dict)
    stock: str = "ORT function body"

    def work(self, output: Tensor, element_size: int = 4) -> Work:
        """Return bytes and operations, with floating-point elements of the given size."""
        moved = 0.0
        for name, tensor in self.inputs.items():
            size = element_size if self._has_value_type(name) else tensor.element_size()
            moved += tensor.numel() * size * self.touched.get(name, 1.0)
        return Work(int(moved) + output.numel() * element_size, self.flops)

    def inputs_on(self, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """Copy the inputs to a device, and convert floating-point inputs to the given type."""
        return {n: t.to(device, dtype if self._has_value_type(n) else t.dtype) for n, t in self.inputs.items()}

    def _has_value_type(self, name: str) -> bool:
        return self.inputs[name].is_floating_point() and name not in self.single

    def onnx_model(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        """Create a model of the nodes that contains the function body of the op."""
        register_schemas()
        inputs, initializers = [], []
        used = {name for node in nodes for name in node.input}
        for name, tensor in self.inputs.items():
            if name not in used:
                continue
            array = tensor.numpy()
            if name in self.constants:
                initializers.append(numpy_helper.from_array(array, name))
            else:
                kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                inputs.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)
        graph = onnx.helper.make_graph(nodes, self.op, inputs, [output], initializers)
        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, 1)]
        return add_function_bodies(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))


def node(op_type: str, inputs: list[str], *, ours: bool = True, output: str = "output", **attributes: Any) -> Any:
    """Create an ONNX node, by default in our domain. Attributes that are None are omitted."""
    present = {name: value for name, value in attributes.items() if value is not None}
    return onnx.helper.make_node(op_type, inputs, [output], domain=DOMAIN if ours else "", **present)


class OnnxRuntimeSide:
    """A model bound to its inputs and to one output buffer, so that a call consists only of the computation."""

    def __init__(self, model: onnx.ModelProto, inputs: Tensors, threads: int, library: Path | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if library is not None:
            options.register_custom_ops_library(str(library))
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {each.name: inputs[each.name].numpy() for each in self._session.get_inputs()}
        result = self._session.run(None, feeds)[0]
        self._output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(result))
        self._values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        self._binding = self._session.io_binding()
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output("output", self._output)

    def __call__(self) -> Tensor:
        """Run once; the result shares memory with the output buffer."""
        self._session.run_with_iobinding(self._binding)
        return torch.from_numpy(self._output.numpy())


def torch_side(function: Callable[[Tensors], Tensor], inputs: Tensors) -> Call:
    """Return a call of a PyTorch function of the inputs, without gradients."""

    def call() -> Tensor:
        with torch.inference_mode():
            return function(inputs)

    return call
