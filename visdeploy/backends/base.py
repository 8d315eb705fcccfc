"""Interface of all engines: run one step, and keep the state on the device (contracts 2 and 3)."""

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
"""Map from the name of a graph input to the engine's handle of the tensor. Never modified in place."""

_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "pytorch": "PyTorch",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT for RTX",
}


@dataclass(frozen=True)
class EngineDescription:
    """Description of the engine that runs a graph, used in certificates and to select the tolerance.

    Attributes:
        engine: Name of the engine, for example `onnxruntime`.
        version: Version of the engine.
        device: Device that runs the graph: `cpu` or `cuda:N`.
        precision: Precision of the engine's arithmetic.
    """

    engine: str
    version: str
    device: str
    precision: Precision = "fp32"

    def __str__(self) -> str:
        return f"{_TITLES.get(self.engine, self.engine)} {self.version} on {self.device}, {self.precision}"


class Backend(ABC):
    """One loaded graph. It keeps no state of a stream, so that several streams can share it, also in several threads.

    Args:
        spec: Inputs, outputs, state and sizes of the graph.
        description: The engine and its device.
    """

    def __init__(self, spec: GraphSpec, description: EngineDescription) -> None:
        self.spec, self.description = spec, description

    @property
    def device(self) -> str:
        """Device that runs the graph: `cpu` or `cuda:N`."""
        return self.description.device

    def initial_state(self, sizes: Mapping[str, int]) -> State:
        """Create the state before the first step, on the device.

        Args:
            sizes: Values of the inputs' symbols, as returned by `bind_inputs`.

        Raises:
            StreamError: A size of the state cannot be evaluated, or the state does not fit on the device.
        """
        arrays = {}
        for spec in self.spec.state:
            try:
                shape = initial_sizes(spec.shape, sizes, self.spec.dims)
            except SizeError as error:
                raise StreamError(
                    f"cannot create the state {spec.input!r}: {error.what}", seen=error.seen, expected=error.expected
                ) from error
            try:
                arrays[spec.input] = _filled(shape, spec.dtype, spec.initial)
            except (MemoryError, ValueError, OverflowError) as error:
                raise StreamError(
                    f"the state {spec.input!r} does not fit into memory", seen=f"{spec.dtype} {shape}: {error}"
                ) from error
        return self._place_state(arrays)

    @abstractmethod
    def run(
        self, inputs: Arrays, state: State, outputs: Collection[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """Run one step.

        Args:
            inputs: Map from name to array, for the graph inputs that are not state.
            state: State returned by the previous step, or by `initial_state`; it stays valid.
            outputs: Names of the outputs to fetch; by default all. Others are not copied to the host.

        Returns:
            The requested outputs, on the host, and the next state, on the device.

        Raises:
            EngineError: An input does not match the graph, or the engine failed.
        """

    def bind_inputs(self, inputs: Arrays) -> dict[str, int]:
        """Check the arrays of one step and determine the values of their symbols.

        Args:
            inputs: Map from name to array, for the graph inputs that are not state.

        Raises:
            EngineError: A name is missing or unknown, or an array has a wrong dtype or a size that is not allowed.
        """
        specs = {spec.name: spec for spec in self.spec.inputs}
        if set(specs) != set(inputs):
            raise EngineError("wrong inputs for a step", seen=str(sorted(inputs)), expected=str(sorted(specs)))
        for name, spec in specs.items():
            if inputs[name].dtype != host_dtype(spec.dtype):
                raise EngineError(
                    f"wrong dtype of graph input {name!r}", seen=str(inputs[name].dtype), expected=str(spec.dtype)
                )
        try:
            return bind((Shaped(n, s.shape, inputs[n].shape) for n, s in specs.items()), self.spec.dims)
        except SizeError as error:
            raise EngineError(
                f"wrong shape of graph input {error.what}",
                seen=error.seen,
                expected=error.expected,
                hint="The graph accepts only these sizes; scale the frames, or export the model for other sizes.",
            ) from error

    def check_outputs(self, names: Collection[str] | None) -> list[str]:
        """Return the names of the outputs to fetch, in the order of the graph.

        Raises:
            EngineError: The graph has no output of that name.
        """
        known = [t.name for t in self.spec.outputs]
        if names is None:
            return known
        if unknown := sorted(set(names) - set(known)):
            raise EngineError("the graph has no such output", seen=str(unknown), expected=str(known))
        return [name for name in known if name in names]

    def check_next_state(self, shapes: Sequence[Sequence[int]], sizes: Mapping[str, int]) -> None:
        """Check the sizes of the state returned by a step; sizes that grow must stay in their range.

        Args:
            shapes: Shape of every tensor of the next state, in the order of `spec.state`.
            sizes: Values of the inputs' symbols.

        Raises:
            EngineError: A size is not allowed.
        """
        tensors = [Shaped(s.output, s.shape, shape) for s, shape in zip(self.spec.state, shapes, strict=True)]
        try:
            bind(tensors, self.spec.dims, sizes)
        except SizeError as error:
            raise EngineError(
                f"the graph returned a state of wrong size: {error.what}", seen=error.seen, expected=error.expected
            ) from error

    def state_to_host(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """Copy a state to arrays by name of the graph input; `bfloat16` becomes `uint16` with the same bits."""
        return {name: np.array(value.numpy()) for name, value in state.items()}

    def state_from_host(self, arrays: Arrays, sizes: Mapping[str, int]) -> State:
        """Copy a state that was returned by `state_to_host` to the device.

        Args:
            arrays: Map from the name of a graph input to its array.
            sizes: Values of the inputs' symbols in the stream that continues from this state.

        Raises:
            StreamError: An array is missing or unknown, or has a wrong dtype or size.
        """
        check_state(self.spec, arrays, sizes)
        return self._place_state(arrays)

    @abstractmethod
    def _place_state(self, arrays: Arrays) -> State:
        """Copy checked arrays to tensors of the engine, which must have a method `numpy`."""


def _filled(shape: Sequence[int], dtype: str, value: float) -> npt.NDArray[Any]:
    if dtype != "bfloat16":
        return np.full(shape, value, dtype=dtype)
    # the upper half of a float32: exact for initial values, which are numbers such as 0 or -1
    return (np.full(shape, value, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def check_state(spec: GraphSpec, arrays: Arrays, sizes: Mapping[str, int]) -> None:
    """Check a saved state against the description of the graph, together with the symbols bound by the inputs.

    Args:
        spec: State and sizes of the graph.
        arrays: Map from the name of a graph input to its array.
        sizes: Values of the inputs' symbols.

    Raises:
        StreamError: An array is missing or unknown, or has a wrong dtype or size.
    """
    if {s.input for s in spec.state} != set(arrays):
        raise StreamError(
            "the saved state does not match the graph",
            seen=str(sorted(arrays)),
            expected=str([s.input for s in spec.state]),
        )
    for each in spec.state:
        if arrays[each.input].dtype != host_dtype(each.dtype):
            raise StreamError(
                f"the saved state {each.input!r} does not match the graph",
                seen=str(arrays[each.input].dtype),
                expected=str(each.dtype),
            )
    try:
        bind((Shaped(s.input, s.shape, arrays[s.input].shape) for s in spec.state), spec.dims, sizes)
    except SizeError as error:
        raise StreamError(
            f"the saved state {error.what} does not match the graph or the size of the frames",
            seen=error.seen,
            expected=error.expected,
            hint="Continue the stream with frames of the size that it was saved with.",
        ) from error


def parse_device(device: str) -> tuple[str, int]:
    """Split a device name into kind and number.

    Returns:
        `("auto" | "cpu" | "cuda", number)`.

    Raises:
        ConfigError: It is not one of `auto`, `cpu`, `cuda`, `cuda:N`.
    """
    match = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d{1,3})", str(device))
    if not match:
        raise ConfigError("unknown device", seen=repr(device), expected="auto, cpu, cuda or cuda:N")
    return (match[1], 0) if match[1] else ("cuda", int(match[2]))
