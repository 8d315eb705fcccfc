"""Inputs, outputs and state of a graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from visdeploy.manifest.base import Strict
from visdeploy.manifest.sizes import Size

DType = Literal["float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]
Role = Literal["frames", "size", "decode", "proof"]


def host_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy type that carries a tensor on the host; `bfloat16` travels as `uint16`, its bits unchanged."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


class TensorSpec(Strict):
    """One graph input or output that is not state.

    Attributes:
        name: Name in the graph.
        dtype: Element type.
        shape: Sizes; a string is a symbol, or an expression over symbols.
        role: What the tensor is for. Inputs: `frames`, or `size`, the rows and columns of the frames' content before
            padding, int64 `[2]`. Outputs: `decode`, needed to make results, or `proof`, compared by certificates only.
        measure: How two engines' values of an output are compared: a name known to `visdeploy.parity.measures`, or one
            that the method brings.
    """

    name: Annotated[str, Field(min_length=1)]
    dtype: DType
    shape: list[Size]
    role: Role
    measure: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$")] = "absolute"


class StateSpec(Strict):
    """One tensor of memory: what `output` gives in one step goes into `input` of the next.

    Attributes:
        input: Name of the graph input.
        output: Name of the graph output, `next_` and the input's name: sorted names pair.
        dtype: Element type.
        shape: Sizes; symbols of the inputs have the inputs' values, others start at their minimum and may change from
            step to step, up to their maximum.
        initial: Value that fills the tensor before the first step.
    """

    input: Annotated[str, Field(min_length=1)]
    output: str
    dtype: DType
    shape: list[Size]
    initial: float = 0.0

    @model_validator(mode="after")
    def _paired(self) -> StateSpec:
        if self.output != f"next_{self.input}":
            raise ValueError(f"the output of state {self.input!r} is called {self.output!r}, not 'next_{self.input}'")
        return self
