"""The one interface of every engine: run one step, keep the state (contract 2)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.errors import ConfigError, EngineError, StreamError
from visdeploy.manifest import Manifest, StateSpec, TensorSpec

Arrays = Mapping[str, npt.NDArray[Any]]
State = Mapping[str, Any]
"""Graph input name → the engine's own handle of the tensor. Never changed in place."""


class Backend(ABC):
    """One loaded graph. Holds no state of any stream, so that several streams share it, also from several threads.

    Args:
        manifest: The bundle's manifest.
        device: Where the graph runs: `cpu` or `cuda:N`.
    """

    def __init__(self, manifest: Manifest, device: str) -> None:
        self.manifest, self.device = manifest, device

    def initial_state(self) -> State:
        """The state before the first frame, on the device."""
        return self._place_state({s.input: np.full(s.shape, s.initial, dtype=s.dtype) for s in self.manifest.state})

    @abstractmethod
    def run(self, inputs: Arrays, state: State) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """One step.

        Args:
            inputs: Name → array, the graph inputs that are not state.
            state: What the step before gave; it stays valid.

        Returns:
            The outputs that are not state, on the host, and the next state.

        Raises:
            EngineError: An input does not fit the graph, or the engine failed.
        """

    def state_to_host(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """Copy a state to arrays, by graph input name."""
        return {name: np.array(value.numpy()) for name, value in state.items()}

    def state_from_host(self, arrays: Arrays) -> State:
        """The state that `state_to_host` gave, on the device.

        Raises:
            StreamError: An array is missing, unknown, or of another dtype or shape.
        """
        check_state(self.manifest.state, arrays)
        return self._place_state(arrays)

    @abstractmethod
    def _place_state(self, arrays: Arrays) -> State:
        """Copies of checked arrays as the engine's own tensors, which have a method `numpy`."""


def check_inputs(manifest: Manifest, inputs: Arrays) -> None:
    """Compare the arrays of one step with the manifest.

    Raises:
        EngineError: A name is missing or unknown, or an array has another dtype or shape.
    """
    specs = {spec.name: spec for spec in manifest.inputs}
    if set(specs) != set(inputs):
        raise EngineError("wrong inputs of a step", seen=str(sorted(inputs)), expected=str(sorted(specs)))
    sizes: dict[str, int] = {}
    for name, spec in specs.items():
        array = inputs[name]
        if array.dtype != np.dtype(spec.dtype) or not _fits(array.shape, spec, sizes):
            raise EngineError(
                f"graph input {name!r} does not fit",
                seen=f"{array.dtype} {list(array.shape)}",
                expected=f"{spec.dtype} {spec.shape}",
                hint="The bundle's preprocessing and its graph contradict each other; export it again.",
            )
    for axis in ("height", "width"):
        if sizes.get(axis, 0) % manifest.size_multiple:
            raise EngineError(
                f"the frame's {axis} does not suit the graph",
                seen=str(sizes[axis]),
                expected=f"a multiple of {manifest.size_multiple}",
            )


def _fits(shape: Sequence[int], spec: TensorSpec, sizes: dict[str, int]) -> bool:
    """Whether a shape fits; symbolic sizes are bound on first sight and must agree afterwards."""
    if len(shape) != len(spec.shape):
        return False
    return all(
        size == (dim if isinstance(dim, int) else sizes.setdefault(dim, size))
        for size, dim in zip(shape, spec.shape, strict=True)
    )


def check_state(specs: Sequence[StateSpec], arrays: Arrays) -> None:
    """Compare a saved state with the manifest.

    Raises:
        StreamError: An array is missing, unknown, or of another dtype or shape.
    """
    if {s.input for s in specs} != set(arrays):
        raise StreamError(
            "the saved state does not fit the graph", seen=str(sorted(arrays)), expected=str([s.input for s in specs])
        )
    for spec in specs:
        array = arrays[spec.input]
        if array.dtype != np.dtype(spec.dtype) or list(array.shape) != spec.shape:
            raise StreamError(
                f"the saved state {spec.input!r} does not fit the graph",
                seen=f"{array.dtype} {list(array.shape)}",
                expected=f"{spec.dtype} {spec.shape}",
            )


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
