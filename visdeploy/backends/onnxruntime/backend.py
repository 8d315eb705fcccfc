"""Backend that runs the graph of a bundle in ONNX Runtime, with the state kept on the device."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visdeploy.backends.base import Arrays, Backend, EngineDescription, State
from visdeploy.backends.onnxruntime.installation import load_onnxruntime
from visdeploy.backends.onnxruntime.session import running_precision, start_session
from visdeploy.errors import BundleError, EngineError, StreamError

if TYPE_CHECKING:
    from visdeploy.bundle import Bundle

_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "uint8": "tensor(uint8)",
    "bool": "tensor(bool)",
}


_BFLOAT16 = 16
"""Number of the type in ONNX (`TensorProto.BFLOAT16`)."""


class OnnxRuntimeBackend(Backend):
    """Graph of a bundle in ONNX Runtime.

    Inputs and outputs are bound to the session (I/O binding): state tensors stay on the device, and only the requested
    outputs are copied to the host. Tensors with data-dependent sizes are allocated by the engine.

    Args:
        bundle: The opened bundle.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, see `open_backend`.
        threads: Number of threads for the part of the graph that runs on the CPU; None leaves it to the engine.
        spinning: Let idle threads spin instead of sleeping.
        tf32: Allow TF32 on CUDA, see `open_backend`.

    Raises:
        BundleError: The graph does not load, or contradicts the manifest.
        ConfigError: `device` or `threads` has an invalid value.
        DependencyError: CUDA was requested, but this installation has no CUDA support.
        EngineError: CUDA was requested, but does not start.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        spinning: bool = False,
        tf32: bool = False,
    ) -> None:
        manifest = bundle.manifest
        self._session, name = start_session(
            bundle.model_path, manifest, device=device, threads=threads, spinning=spinning, tf32=tf32
        )
        precision = running_precision(self._session, manifest.precision)
        super().__init__(manifest, EngineDescription("onnxruntime", load_onnxruntime().__version__, name, precision))
        self._check_graph(str(bundle.model_path))
        kind, _, number = name.partition(":")
        self._place = (kind, int(number or 0))
        self._next = [(s.input, s.output) for s in manifest.state]
        self._bits = {s.input for s in manifest.state if s.dtype == "bfloat16"}

    def run(
        self, inputs: Arrays, state: State, outputs: Collection[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """Run one step, see `Backend.run`.

        Raises:
            EngineError: An input does not match the graph, or the engine failed.
        """
        sizes, names = self.bind_inputs(inputs), self.check_outputs(outputs)
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in state.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, "cpu")
        for _, name in self._next:
            binding.bind_output(name, *self._place)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # pybind's exception classes differ from version to version
            raise EngineError("the graph failed", seen=str(error)[:400]) from error
        values = binding.get_outputs()  # in the order in which they were bound
        host = {name: _to_host(value) for name, value in zip(names, values, strict=False)}
        kept = values[len(names) :]
        if kept:
            self.check_next_state([value.shape() for value in kept], sizes)
        return host, {name: value for (name, _), value in zip(self._next, kept, strict=True)}

    def state_to_host(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """Copy a state to arrays, see `Backend.state_to_host`."""
        return {name: np.array(_to_host(value)) for name, value in state.items()}

    def _place_state(self, arrays: Arrays) -> State:
        try:
            return {name: self._place_tensor(name, np.array(array, order="C")) for name, array in arrays.items()}
        except Exception as error:  # pybind's exception classes differ from version to version
            raise StreamError(f"the state cannot be placed on {self.device}", seen=str(error)[:300]) from error

    def _place_tensor(self, name: str, array: npt.NDArray[Any]) -> Any:
        """Create a value on the device. On the CPU it shares the array's memory, so pass a copy."""
        values = load_onnxruntime().OrtValue
        if name in self._bits:
            return values.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
        return values.ortvalue_from_numpy(array, *self._place)

    def _check_graph(self, where: str) -> None:
        """Raise a `BundleError` if a name, dtype or shape of the graph differs from the manifest."""
        state = self.spec.state
        inputs = [(t.name, t.dtype, list(t.shape)) for t in self.spec.inputs]
        inputs += [(s.input, s.dtype, list(s.shape)) for s in state]
        outputs = [(t.name, t.dtype, list(t.shape)) for t in self.spec.outputs]
        outputs += [(s.output, s.dtype, list(s.shape)) for s in state]
        for kind, listed, found in (
            ("input", inputs, self._session.get_inputs()),
            ("output", outputs, self._session.get_outputs()),
        ):
            graph = {node.name: node for node in found}
            if {name for name, _, _ in listed} != set(graph):
                raise BundleError(
                    f"{where}: the graph's {kind}s differ from those of the manifest",
                    seen=str(sorted(graph)),
                    expected=str(sorted(name for name, _, _ in listed)),
                    hint="Export the bundle again.",
                )
            for name, dtype, shape in listed:
                node = graph[name]
                if node.type != _TYPES[dtype] or not _agree(node.shape, shape, strict=kind == "input"):
                    raise BundleError(
                        f"{where}: graph {kind} {name!r} contradicts the manifest",
                        seen=f"{node.type} {node.shape}",
                        expected=f"{_TYPES[dtype]} {shape}",
                        hint="Export the bundle again.",
                    )


def _agree(graph: list[Any], manifest: list[Any], *, strict: bool) -> bool:
    """Return whether two shapes agree; `strict` requires the same axes to be symbolic in both, as for inputs."""
    if len(graph) != len(manifest):
        return False
    for seen, listed in zip(graph, manifest, strict=True):
        if isinstance(seen, int) and isinstance(listed, int):
            if seen != listed:
                return False
        elif strict and isinstance(seen, int) != isinstance(listed, int):
            return False
    return True


def _to_host(value: Any) -> npt.NDArray[Any]:
    """Return the array of a value. ONNX Runtime does not convert `bfloat16`, so its bits are read from memory.

    Raises:
        EngineError: A `bfloat16` value is on a GPU.
    """
    if value.element_type() != _BFLOAT16:
        return np.asarray(value.numpy())
    if value.device_name() != "cpu":
        raise EngineError(
            "ONNX Runtime for Python cannot copy a bfloat16 tensor from the GPU",
            seen=value.device_name(),
            expected="cpu",
            hint="Export the model with float32 or float16 state, or run it on the CPU.",
        )
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, np.uint16).reshape(value.shape())
