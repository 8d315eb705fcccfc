"""Interface between a method and the exporter: a pure step function, its description, and how it is traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from visdeploy.manifest import GraphSpec, SizeError
from visdeploy.manifest.sizes import evaluate, is_symbol, symbols


@dataclass(frozen=True)
class StepGraph:
    """Step function `outputs, state' = step(inputs, state)`, ready to be exported (see docs/bundle.md).

    Attributes:
        module: Module that takes the inputs of `spec`, then its state, and returns its outputs, then the next state,
            all as positional tensors.
        spec: Inputs, outputs, state and sizes of the module, and how it is run.
        traced: Symbol → value in the example for tracing; default: the typical value.
    """

    module: nn.Module
    spec: GraphSpec
    traced: Mapping[str, int] = field(default_factory=dict)

    @property
    def input_names(self) -> list[str]:
        """Names of all graph inputs, in order."""
        return [t.name for t in self.spec.inputs] + [s.input for s in self.spec.state]

    @property
    def output_names(self) -> list[str]:
        """Names of all graph outputs, in order."""
        return [t.name for t in self.spec.outputs] + [s.output for s in self.spec.state]

    def example(self) -> tuple[Tensor, ...]:
        """Return one tensor of typical size for each input and state; the same in every call."""
        sizes = {name: dim.typical for name, dim in self.spec.dims.items()} | dict(self.traced)
        generator = torch.Generator().manual_seed(0)
        found = []
        for tensor in self.spec.inputs:
            shape, dtype = [evaluate(s, sizes) for s in tensor.shape], getattr(torch, tensor.dtype)
            if tensor.role == "size":
                found.append(torch.tensor([evaluate(s, sizes) for s in self.spec.frames.shape[2:]], dtype=dtype))
            else:
                found.append(torch.randn(shape, generator=generator).to(dtype))
        for state in self.spec.state:
            shape = [evaluate(s, sizes) for s in state.shape]
            found.append(torch.full(shape, state.initial, dtype=getattr(torch, state.dtype)))
        return tuple(found)

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """Return the argument `dynamic_shapes` of `torch.onnx.export`: axis → size, for each input and state."""
        units: dict[str, Any] = {}
        shapes = [t.shape for t in self.spec.inputs] + [s.shape for s in self.spec.state]
        return tuple(
            {axis: self._dynamic(str(size), units) for axis, size in enumerate(shape) if self._varies(size)}
            for shape in shapes
        )

    def _varies(self, size: int | str) -> bool:
        """Return whether a size has more than one value."""
        return any(self.spec.dims[name].minimum < self.spec.dims[name].maximum for name in symbols(size))

    def _dynamic(self, size: str, units: dict[str, Any]) -> Any:
        """Return a symbol, or a linear expression over one symbol, as a multiple of the unit of the symbol."""
        names = symbols(size)
        if len(names) > 1:
            return torch.export.Dim.DYNAMIC
        (name,) = names
        dim = self.spec.dims[name]
        unit = units.setdefault(
            name, torch.export.Dim(f"{name}_", min=dim.minimum // dim.multiple, max=dim.maximum // dim.multiple)
        )
        if is_symbol(size):
            return dim.multiple * unit if dim.multiple > 1 else unit
        line = _linear(size, name, dim.multiple)
        if line is None:
            return torch.export.Dim.DYNAMIC
        factor, offset = line
        scaled = factor * unit if factor > 1 else unit
        return scaled + offset if offset else scaled


def _linear(size: str, name: str, multiple: int) -> tuple[int, int] | None:
    """Return factor and offset of an expression in the unit of its symbol; None if they are no whole numbers."""
    try:
        values = [Fraction(evaluate(size, {name: multiple * unit})) for unit in (8, 9, 16)]
    except SizeError:
        return None
    factor = values[1] - values[0]
    offset = values[0] - 8 * factor
    if values[2] != 16 * factor + offset or factor < 1 or factor.denominator != 1 or offset.denominator != 1:
        return None
    return int(factor), int(offset)
