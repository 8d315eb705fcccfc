"""The activations of one step in two engines, and the first one that differs."""

from __future__ import annotations

from dataclasses import dataclass

BOUND = 1e-4
"""Largest own error of a layer, as a share of its largest value. One rounding to float32 is 6e-8 of a value, and
kernels that sum in another order are a few of them apart: 1.1e-6 at most in the tiny networks here. 1e-4 are 1,600."""


@dataclass(frozen=True)
class Difference:
    """How far an array of the engine is from PyTorch's.

    Attributes:
        error: Largest difference; infinite where only one side has a number, or the shapes differ.
        share: The same as a share of PyTorch's largest value; of whole numbers and booleans, the share that differs.
        note: What these numbers cannot say.
    """

    error: float
    share: float
    note: str = ""


@dataclass(frozen=True)
class LayerRow:
    """One activation in both engines.

    Attributes:
        order: Position among the compared activations.
        name: Node of the traced program.
        layer: Path of its module in the network; empty for the step function.
        op: Operators that were compared as one, in order.
        includes: Paths of other modules whose operators are among them.
        shape: Shape in PyTorch.
        dtype: Element type in PyTorch.
        total: Difference of the engines where both start from the inputs of the step.
        own: Difference of this layer alone: PyTorch computes it from the engine's values of its inputs.
        differs: Whether the own difference is more than rounding.
    """

    order: int
    name: str
    layer: str
    op: str
    includes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    total: Difference
    own: Difference
    differs: bool

    @property
    def place(self) -> str:
        """Where in the network it is."""
        where = self.layer or "the step function"
        return f"{where}, computed together with {', '.join(self.includes)}" if self.includes else where

    def __str__(self) -> str:
        whole = "its largest value" if "float" in self.dtype else "its entries"
        how = self.own.note or f"error {self.own.error:.3g}, {self.own.share:.3g} of {whole}"
        return f"{self.place} ({self.op}, node {self.name}, {self.dtype} {list(self.shape)}): {how}"


@dataclass(frozen=True)
class LayerReport:
    """All activations of one step.

    Attributes:
        rows: What could be compared, in the order in which it is computed.
        unaligned: Nodes of the traced program without a counterpart in the ONNX graph that are part of no row.
        untraced: Outputs in which the traced program itself differs from the network; empty where it does not.
        stopped: Why the comparison ended before the last node; empty where it did not.
    """

    rows: tuple[LayerRow, ...]
    unaligned: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def first(self) -> LayerRow | None:
        """The first layer that differs."""
        return next((row for row in self.rows if row.differs), None)

    def __str__(self) -> str:
        if self.first is not None:
            return f"the first layer that differs is {self.first}"
        if self.untraced:
            return f"no layer differs, but what torch traced is not the network: {'; '.join(self.untraced)}"
        worst = max((row.own.share for row in self.rows), default=0.0)
        return f"no layer differs by more than rounding (own errors to {worst:.1e} of the largest value)"
