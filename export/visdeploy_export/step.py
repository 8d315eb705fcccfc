"""What a method hands to the exporter: a pure step function and everything the manifest says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from visdeploy.manifest import Preprocessing, StateSpec, TensorSpec, Window


@dataclass(frozen=True)
class StepGraph:
    """A step function `outputs, state' = step(inputs, state)`, ready to be exported (contract 2).

    Attributes:
        module: Takes `inputs` then `state`, gives `outputs` then the next `state`, all as positional tensors.
        inputs: Graph inputs besides the state.
        outputs: Graph outputs besides the state.
        state: The memory, in order.
        example: One tensor per input and state, to trace with.
        dynamic_shapes: Per input and state, axis → symbol, as `torch.onnx.export` takes it.
        preprocessing: How frames become the first input.
        window: Frames per step.
        decode: Parameters of the method's decoder.
        tracking: Parameters of the method's tracker.
        size_multiple: Height and width of the input must be multiples of this.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[StateSpec, ...]
    example: tuple[Tensor, ...]
    dynamic_shapes: tuple[Mapping[int, Any] | None, ...]
    preprocessing: Preprocessing
    window: Window
    decode: Mapping[str, Any]
    tracking: Mapping[str, Any]
    size_multiple: int

    @property
    def input_names(self) -> list[str]:
        """All graph inputs in order."""
        return [t.name for t in self.inputs] + [s.input for s in self.state]

    @property
    def output_names(self) -> list[str]:
        """All graph outputs in order."""
        return [t.name for t in self.outputs] + [s.output for s in self.state]

    def manifest_fields(self) -> dict[str, Any]:
        """The part of the manifest that follows from the step."""
        names = ("inputs", "outputs", "state", "preprocessing", "window", "decode", "tracking", "size_multiple")
        return {name: getattr(self, name) for name in names}
