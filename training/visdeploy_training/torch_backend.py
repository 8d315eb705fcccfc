"""PyTorch backend of the runtime, for validation during training and as the reference of every certificate."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visdeploy.backends.base import Arrays, Backend, EngineDescription, State
from visdeploy.manifest import GraphSpec


class TorchBackend(Backend):
    """Backend that runs a step module in eager PyTorch, on the device of its weights.

    Args:
        module: Module whose arguments are the inputs of `spec`, then its state. It returns the outputs, then the next
            state.
        spec: Inputs, outputs and state of the module.
    """

    def __init__(self, module: nn.Module, spec: GraphSpec) -> None:
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))
        super().__init__(spec, EngineDescription("pytorch", torch.__version__, str(self._device)))
        self._module = module

    def run(
        self, inputs: Arrays, state: State, outputs: Collection[str] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """Run one step, see `Backend.run`.

        Raises:
            EngineError: An input does not match the graph.
        """
        sizes, names = self.bind_inputs(inputs), self.check_outputs(outputs)
        tensors = [_tensor(inputs[t.name], t.dtype).to(self._device) for t in self.spec.inputs]
        # a training in lower precision validates what is exported, which is not autocast
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            values = self._module(*tensors, *(state[s.input] for s in self.spec.state))
        values = values if isinstance(values, tuple) else (values,)
        count = len(self.spec.outputs)
        given = dict(zip((t.name for t in self.spec.outputs), values[:count], strict=True))
        kept = {s.input: value for s, value in zip(self.spec.state, values[count:], strict=True)}
        self.check_next_state([tuple(value.shape) for value in kept.values()], sizes)
        return {name: _array(given[name]) for name in names}, kept

    def state_to_host(self, state: State) -> dict[str, npt.NDArray[Any]]:
        """Copy a state to arrays, see `Backend.state_to_host`."""
        return {name: np.array(_array(value)) for name, value in state.items()}

    def _place_state(self, arrays: Arrays) -> State:
        dtypes = {s.input: s.dtype for s in self.spec.state}
        return {n: _tensor(np.array(a, order="C"), dtypes[n]).to(self._device) for n, a in arrays.items()}


def _tensor(array: npt.NDArray[Any], dtype: str) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _array(value: Tensor) -> npt.NDArray[Any]:
    """Copy a tensor to the host as a contiguous array, so that a transposed view is not stored as such."""
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        value = value.contiguous().view(torch.uint16)
    return np.ascontiguousarray(value.numpy())
