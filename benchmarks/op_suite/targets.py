"""What issue and documentation promise, to be printed beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from op_suite.run import Row


@dataclass(frozen=True)
class Target:
    """A ratio to reach.

    Attributes:
        op: Name of the op.
        baseline: Start of the baseline's name.
        ratio: The least ratio.
        dtype: Value type.
        device: Where.
        clock: "cpu" compares processor time, which others on the machine cannot spoil; "wall" the clock.
    """

    op: str
    baseline: str
    ratio: float
    dtype: str = "float32"
    device: str = "cpu"
    clock: str = "cpu"

    def reached(self, row: Row, device: str) -> float | None:
        """The measured ratio, or None when the row is about something else."""
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
