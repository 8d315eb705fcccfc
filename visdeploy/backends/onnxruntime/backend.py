"""ONNX Runtime: on the CPU, and on CUDA with the state kept on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visdeploy.backends.base import Arrays, Backend, State, check_inputs
from visdeploy.backends.onnxruntime.session import start_session
from visdeploy.errors import BundleError, EngineError, StreamError

if TYPE_CHECKING:
    from visdeploy.bundle import Bundle

_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "uint8": "tensor(uint8)",
    "bool": "tensor(bool)",
}


class OnnxRuntimeBackend(Backend):
    """A bundle's graph in ONNX Runtime.

    Inputs and outputs are bound rather than passed: state tensors stay where they were computed, and only the other
    outputs come to the host. Sizes that depend on the data are allocated by the engine.

    Args:
        bundle: The opened bundle.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, see `open_backend`.
        threads: Threads for the CPU's part of the graph; None leaves the choice to the engine.
        spinning: Let idle threads spin instead of sleep.

    Raises:
        BundleError: The graph does not load, or contradicts the manifest.
        ConfigError: `device` or `threads` has no possible value.
        DependencyError: CUDA was asked for, and this installation has none.
        EngineError: CUDA was asked for, and does not start.
    """

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", threads: int | None = None, spinning: bool = False
    ) -> None:
        self._session, name = start_session(
            bundle.model_path, bundle.manifest, device=device, threads=threads, spinning=spinning
        )
        super().__init__(bundle.manifest, name)
        self._check_graph(str(bundle.model_path))
        kind, _, number = name.partition(":")
        self._place = (kind, int(number or 0))
        self._outputs = [t.name for t in self.manifest.outputs]
        self._next = [(s.input, s.output) for s in self.manifest.state]

    def run(self, inputs: Arrays, state: State) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """One step, see `Backend.run`.

        Raises:
            EngineError: An input does not fit the graph, or the engine failed.
        """
        check_inputs(self.manifest, inputs)
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in state.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        for _, name in self._next:
            binding.bind_output(name, *self._place)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # pybind's exception classes differ from version to version
            raise EngineError("the graph failed", seen=str(error)[:400]) from error
        values = binding.get_outputs()  # in the order in which they were bound
        host = {name: value.numpy() for name, value in zip(self._outputs, values, strict=False)}
        kept = values[len(self._outputs) :]
        return host, {name: value for (name, _), value in zip(self._next, kept, strict=True)}

    def _place_state(self, arrays: Arrays) -> State:
        from onnxruntime import OrtValue

        try:
            # a value on the CPU borrows the array's memory, so it gets one of its own
            return {n: OrtValue.ortvalue_from_numpy(np.array(a, order="C"), *self._place) for n, a in arrays.items()}
        except Exception as error:  # pybind's exception classes differ from version to version
            raise StreamError(f"the state cannot be placed on {self.device}", seen=str(error)[:300]) from error

    def _check_graph(self, where: str) -> None:
        """Raise unless names, dtypes and shapes of the graph are those of the manifest."""
        state = self.manifest.state
        inputs = [(t.name, t.dtype, list(t.shape)) for t in self.manifest.inputs]
        inputs += [(s.input, s.dtype, list(s.shape)) for s in state]
        outputs = [(t.name, t.dtype, list(t.shape)) for t in self.manifest.outputs]
        outputs += [(s.output, s.dtype, list(s.shape)) for s in state]
        for kind, listed, found in (
            ("input", inputs, self._session.get_inputs()),
            ("output", outputs, self._session.get_outputs()),
        ):
            graph = {node.name: node for node in found}
            if {name for name, _, _ in listed} != set(graph):
                raise BundleError(
                    f"{where}: the graph's {kind}s are not those of the manifest",
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
    """Whether two shapes agree; sizes the graph leaves open may be fixed by the manifest for outputs only."""
    if len(graph) != len(manifest):
        return False
    for seen, listed in zip(graph, manifest, strict=True):
        if isinstance(seen, int) and isinstance(listed, int):
            if seen != listed:
                return False
        elif strict and isinstance(seen, int) != isinstance(listed, int):
            return False
    return True
