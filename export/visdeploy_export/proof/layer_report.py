"""Report on the activations of one step in two engines, and the first one that differs."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDING = 2.0**-24
"""Maximum error of one rounding to float32, relative to the value."""
BOUND = 1e-4
"""Maximum own error of a layer, relative to its largest value. Kernels that sum in another order differ by a few
roundings, by 1.3e-6 at most in the networks here; 1e-4 are 1,700 of them. A value that sums more terms than that, such
as the pixels of a mask, may differ by one rounding for each."""


@dataclass(frozen=True)
class Difference:
    """Difference between an array of the engine and that of PyTorch.

    Attributes:
        error: Largest absolute difference; infinite if a value is finite on one side only, or the shapes differ.
        share: The same relative to the largest value in PyTorch; for whole numbers and booleans, the fraction of
            entries that differ.
        note: Explanation that the numbers do not give.
    """

    error: float
    share: float
    note: str = ""


@dataclass(frozen=True)
class LayerRow:
    """Activation in both engines.

    Attributes:
        order: Position among the compared activations.
        name: Node of the traced program.
        layer: Path of its module in the network; empty for the step function.
        op: Operators that were compared as one, in order.
        includes: Paths of other modules whose operators are among them.
        shape: Shape in PyTorch.
        dtype: Element type in PyTorch.
        total: Difference of the engines if both start from the inputs of the step.
        own: Difference of this layer alone: PyTorch computes it from the values of the engine for its inputs.
        differs: Whether the own difference exceeds rounding errors.
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
        """Location in the network."""
        where = self.layer or "the step function"
        return f"{where}, computed together with {', '.join(self.includes)}" if self.includes else where

    def __str__(self) -> str:
        whole = "its largest value" if "float" in self.dtype else "its entries"
        how = self.own.note or f"error {self.own.error:.3g}, {self.own.share:.3g} of {whole}"
        return f"{self.place} ({self.op}, node {self.name}, {self.dtype} {list(self.shape)}): {how}"


@dataclass(frozen=True)
class LayerReport:
    """Comparison of all activations of one step.

    Attributes:
        rows: Activations that could be compared, in the order of computation.
        unaligned: Nodes of the traced program that have no counterpart in the ONNX graph and are part of no row.
        untraced: Outputs in which the traced program differs from the network; empty if there are none.
        stopped: Reason if the comparison ended before the last node; otherwise empty.
    """

    rows: tuple[LayerRow, ...]
    unaligned: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def first(self) -> LayerRow | None:
        """First layer that differs; None if no layer does."""
        return next((row for row in self.rows if row.differs), None)

    def __str__(self) -> str:
        if self.first is not None:
            return f"the first layer that differs is {self.first}"
        if self.untraced:
            return f"no layer differs, but what torch traced is not the network: {'; '.join(self.untraced)}"
        worst = max((row.own.share for row in self.rows), default=0.0)
        return f"no layer differs by more than rounding (own errors to {worst:.1e} of the largest value)"
