"""The one interface of every engine: run one step, keep the state (contracts 2 and 3)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import ConfigError, EngineError, StreamError
from visdeploy.manifest import GraphSpec, Precision, SizeError, host_dtype
from visdeploy.manifest.sizes import Shaped, bind, initial_sizes

Arrays = Mapping[str, npt.NDArray[Any]]
State = Mapping[str, Any]
"""Graph input name → the engine's own handle of the tensor. Never changed in place."""

_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "pytorch": "PyTorch",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT for RTX",
}


@dataclass(frozen=True)
class EngineDescription:
    """Which engine runs a graph, as certificates and tolerances name it.

    Attributes:
        engine: Name of the engine, for example `onnxruntime`.
        version: Version of the engine.
        device: Where the graph runs: `cpu` or `cuda:N`.
        precision: Precision that the engine computes in.
    """

    engine: str
    version: str
    device: str
    precision: Precision = "fp32"

    def __str__(self) -> str:
        return f"{_TITLES.get(self.engine, self.engine)} {self.version} on {self.device}, {self.precision}"


class Backend(ABC):
    """One loaded graph. Holds no state of any stream, so that several streams share it, also from several threads.

    Args:
        spec: Inputs, outputs, state and sizes of the graph.
        description: Which engine runs it, and where.
    """

    def __init__(self, spec: GraphSpec, description: EngineDescription) -> None:
        self.spec, self.description = spec, description

    @property
    def device(self) -> str:
        """Where the graph runs: `cpu` or `cuda:N`."""
        return self.description.device

    def initial_state(self, sizes: Mapping[str, int]) -> State:
        """The state before the first step, on the device.

        Args:
            sizes: Values of the inputs' symbols, as `bind_inputs` gives them.

        Raises:
            StreamError: A size of the state cannot be evaluated, or the state does not fit on the device.
        """
        arrays = {}
        for spec in self.spec.state:
            try:
                shape = initial_sizes(spec.shape, sizes, self.spec.dims)
            except SizeError as error:
                raise StreamError(
                    f"the state {spec.input!r} cannot be made: {error.what}", seen=error.seen, expected=error.expected
                ) from error
            arrays[spec.input] = _filled(shape, spec.dtype, spec.initial)
        return self._place_state(arrays)

    @abstractmethod
    def run(
        self, inputs: Arrays, state: State, outputs: Collection[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """One step.

        Args:
            inputs: Name → array, the graph inputs that are not state.
            state: What the step before gave, or `initial_state`; it stays valid.
            outputs: Names of the outputs to fetch; by default all. Others are not copied to the host.

        Returns:
            The outputs asked for, on the host, and the next state, on the device.

        Raises:
            EngineError: An input does not fit the graph, or the engine failed.
        """

    def bind_inputs(self, inputs: Arrays) -> dict[str, int]:
        """Check the arrays of one step and find the values of their symbols.

        Args:
            inputs: Name → array, the graph inputs that are not state.

        Raises:
            EngineError: A name is missing or unknown, or an array has another dtype or a size that is not allowed.
        """
        specs = {spec.name: spec for spec in self.spec.inputs}
        if set(specs) != set(inputs):
            raise EngineError("wrong inputs of a step", seen=str(sorted(inputs)), expected=str(sorted(specs)))
        for name, spec in specs.items():
            if inputs[name].dtype != host_dtype(spec.dtype):
                raise EngineError(
                    f"graph input {name!r} does not fit", seen=str(inputs[name].dtype), expected=str(spec.dtype)
                )
        try:
            return bind((Shaped(n, s.shape, inputs[n].shape) for n, s in specs.items()), self.spec.dims)
        except SizeError as error:
            raise EngineError(
                f"graph input {error.what} does not fit",
                seen=error.seen,
                expected=error.expected,
                hint="The graph takes these sizes only; scale the frames, or export the model for other sizes.",
            ) from error

    def check_outputs(self, names: Collection[str] | None) -> list[str]:
        """The outputs to fetch, in the graph's order.

        Raises:
            EngineError: A name is no output of the graph.
        """
        known = [t.name for t in self.spec.outputs]
        if names is None:
            return known
        if unknown := sorted(set(names) - set(known)):
            raise EngineError("no such output of the graph", seen=str(unknown), expected=str(known))
        return [name for name in known if name in names]

    def check_next_state(self, shapes: Sequence[Sequence[int]], sizes: Mapping[str, int]) -> None:
        """Check the sizes of the state that a step gave; those that grow must stay in their range.

        Args:
            shapes: Shape of every tensor of the next state, in the order of the specification.
            sizes: Values of the inputs' symbols.

        Raises:
            EngineError: A size is not allowed.
        """
        tensors = [Shaped(s.output, s.shape, shape) for s, shape in zip(self.spec.state, shapes, strict=True)]
        try:
            bind(tensors, self.spec.dims, sizes)
        except SizeError as error:
            raise EngineError(
                f"the graph gave a state of a wrong size: {error.what}", seen=error.seen, expected=error.expected
            ) from error

    def state_to_host(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """Copy a state to arrays, by graph input name; `bfloat16` as `uint16` with the same bits."""
        return {name: np.array(value.numpy()) for name, value in state.items()}

    def state_from_host(self, arrays: Arrays, sizes: Mapping[str, int]) -> State:
        """The state that `state_to_host` gave, on the device.

        Args:
            arrays: Graph input name → array.
            sizes: Values of the inputs' symbols in the stream that goes on with it.

        Raises:
            StreamError: An array is missing, unknown, or of another dtype or size.
        """
        check_state(self.spec, arrays, sizes)
        return self._place_state(arrays)

    @abstractmethod
    def _place_state(self, arrays: Arrays) -> State:
        """Copies of checked arrays as the engine's own tensors, which have a method `numpy`."""


def _filled(shape: Sequence[int], dtype: str, value: float) -> npt.NDArray[Any]:
    if dtype != "bfloat16":
        return np.full(shape, value, dtype=dtype)
    # the upper half of a float32; initial values are short numbers such as 0 or -1
    return (np.full(shape, value, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def check_state(spec: GraphSpec, arrays: Arrays, sizes: Mapping[str, int]) -> None:
    """Compare a saved state with the specification; symbols are bound together with the inputs'.

    Args:
        spec: State and sizes of the graph.
        arrays: Graph input name → array.
        sizes: Values of the inputs' symbols.

    Raises:
        StreamError: An array is missing, unknown, or of another dtype or size.
    """
    if {s.input for s in spec.state} != set(arrays):
        raise StreamError(
            "the saved state does not fit the graph",
            seen=str(sorted(arrays)),
            expected=str([s.input for s in spec.state]),
        )
    for each in spec.state:
        if arrays[each.input].dtype != host_dtype(each.dtype):
            raise StreamError(
                f"the saved state {each.input!r} does not fit the graph",
                seen=str(arrays[each.input].dtype),
                expected=str(each.dtype),
            )
    try:
        bind((Shaped(s.input, s.shape, arrays[s.input].shape) for s in spec.state), spec.dims, sizes)
    except SizeError as error:
        raise StreamError(
            f"the saved state {error.what} does not fit the graph or the size of the frames",
            seen=error.seen,
            expected=error.expected,
            hint="A stream goes on with frames of the size that it was saved with.",
        ) from error


def parse_device(device: str) -> tuple[str, int]:
    """Split a device name into kind and number.

    Returns:
        `("auto" | "cpu" | "cuda", number)`.

    Raises:
        ConfigError: It is none of `auto`, `cpu`, `cuda`, `cuda:N`.
    """
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d{1,3})", str(device))
    if not match:
        raise ConfigError("unknown device", seen=repr(device), expected="auto, cpu, cuda or cuda:N")
    return (match[1], 0) if match[1] else ("cuda", int(match[2]))
