"""Target ratios of the operators, printed with the measured ratios."""

from __future__ import annotations

from dataclasses import dataclass

from op_suite.run import Row


@dataclass(frozen=True)
class Target:
    """A target ratio.

    Attributes:
        op: Name of the op.
        baseline: Start of the baseline's name.
        ratio: Minimum ratio.
        dtype: Value type.
        device: Device, "cpu" or "cuda".
        clock: "cpu" to compare processor times, which other processes do not affect, or "wall" for wall-clock times.
    """

    op: str
    baseline: str
    ratio: float
    dtype: str = "float32"
    device: str = "cpu"
    clock: str = "cpu"

    def reached(self, row: Row, device: str) -> float | None:
        """Return the measured ratio; None if the row is not about this target."""
        same = (row.op, row.dtype, device) == (self.op, self.dtype, self.device)
        if not same or not row.baseline.startswith(self.baseline):
            return None
        return row.cpu_ratio if self.clock == "cpu" else row.wall_ratio


TARGETS = (
    Target("ms_deform_attn", "ORT function body", 10),
    Target("ms_deform_attn", "PyTorch", 20),
    Target("ms_deform_attn", "ORT kernel", 1.7, clock="wall"),
    Target("deform_conv", "ORT DeformConv", 1.3),
    Target("masked_conv", "ORT function body", 2.5),
    Target("ms_deform_attn", "PyTorch grid_sample", 6, dtype="float16", device="cuda", clock="wall"),
    Target("ms_deform_attn", "deformops", 1.1, dtype="float16", device="cuda", clock="wall"),
)
