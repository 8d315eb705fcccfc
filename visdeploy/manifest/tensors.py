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
    """Return the NumPy type that holds a tensor on the host: `uint16` with the same bits for `bfloat16`."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


class TensorSpec(Strict):
    """One graph input or output that is not state.

    Attributes:
        name: Name in the graph.
        dtype: Element type.
        shape: Sizes; a string is a symbol, or an expression over symbols.
        role: Purpose of the tensor. Inputs: `frames`, or `size`, the height and width of the frames before padding,
            int64 `[2]`. Outputs: `decode`, needed to compute results, or `proof`, compared by certificates only.
        measure: Name of the measure that compares the values of an output from two engines: one of
            `visdeploy.parity.measures`, or one defined by the method.
    """

    name: Annotated[str, Field(min_length=1)]
    dtype: DType
    shape: list[Size]
    role: Role
    measure: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$")] = "absolute"


class StateSpec(Strict):
    """One state tensor: the value of `output` in one step is passed to `input` in the next step.

    Attributes:
        input: Name of the graph input.
        output: Name of the graph output: `next_` followed by the name of the input.
        dtype: Element type.
        shape: Sizes. Symbols of the inputs have the values bound by the inputs; others start at their minimum and may
            change from step to step, up to their maximum.
        initial: Value of all elements before the first step.
    """

    input: Annotated[str, Field(min_length=1)]
    output: str
    dtype: DType
    shape: list[Size]
    initial: float = 0.0

    @model_validator(mode="after")
    def _paired(self) -> StateSpec:
        if self.dtype in ("int64", "int32", "uint8", "bool"):
            limits = (0, 1) if self.dtype == "bool" else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
            if not (self.initial.is_integer() and limits[0] <= self.initial <= limits[1]):
                raise ValueError(f"the initial value {self.initial} of state {self.input!r} is no {self.dtype}")
        if self.output != f"next_{self.input}":
            raise ValueError(f"the output of state {self.input!r} is called {self.output!r}, not 'next_{self.input}'")
        return self
