"""PyTorch behind the runtime's engine interface, so that both are driven by the same code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from visdeploy.backends.base import Arrays, Backend, State, check_inputs, check_state, initial_arrays
from visdeploy.manifest import Manifest


class TorchBackend(Backend):
    """A step module in eager PyTorch on the CPU: the reference of every certificate.

    Args:
        module: Takes the manifest's inputs then its state, gives its outputs then the next state.
        manifest: What the module was exported with.
    """

    def __init__(self, module: nn.Module, manifest: Manifest) -> None:
        super().__init__(manifest, "cpu")
        self._module = module

    def initial_state(self) -> State:
        """The state before the first frame, as tensors."""
        return {name: torch.from_numpy(array) for name, array in initial_arrays(self.manifest).items()}

    def run(self, inputs: Arrays, state: State) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """One step, see `Backend.run`.

        Raises:
            EngineError: An input does not fit the graph.
        """
        check_inputs(self.manifest, inputs)
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in self.manifest.inputs]
        with torch.inference_mode():
            values = self._module(*tensors, *(state[s.input] for s in self.manifest.state))
        count = len(self.manifest.outputs)
        # standard order, so that a transposed view is not stored as such
        host = {
            t.name: np.ascontiguousarray(v.numpy()) for t, v in zip(self.manifest.outputs, values[:count], strict=True)
        }
        return host, {s.input: v for s, v in zip(self.manifest.state, values[count:], strict=True)}

    def state_to_host(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """Copy a state to arrays, by graph input name."""
        return {name: np.array(value.numpy()) for name, value in state.items()}

    def state_from_host(self, arrays: Arrays) -> State:
        """The state that `state_to_host` gave.

        Raises:
            StreamError: An array is missing, unknown, or of another dtype or shape.
        """
        check_state(self.manifest.state, arrays)
        return {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
