"""PyTorch behind the runtime's engine interface, so that both are driven by the same code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from visdeploy.backends.base import Arrays, Backend, State, check_inputs
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

    def _place_state(self, arrays: Arrays) -> State:
        return {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
