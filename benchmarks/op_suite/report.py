"""Tables of the measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from op_suite.roofline import Machine
from op_suite.run import Roof, Row
from op_suite.targets import TARGETS


def print_rows(console: Console, rows: Sequence[Row], title: str) -> None:
    """Print the times of both sides, and the speed-up of our side."""
    columns = ("op", "setting", "dtype", "ours", "wall ms", "CPU ms", "baseline", "wall ms", "CPU ms", "wall", "CPU")
    cells = (
        (
            *(row.op, row.setting, row.dtype, row.ours, f"{row.ours_ms.wall_ms:.2f}", f"{row.ours_ms.cpu_ms:.2f}"),
            *(row.baseline, f"{row.baseline_ms.wall_ms:.2f}", f"{row.baseline_ms.cpu_ms:.2f}"),
            *(f"{row.wall_ratio:.2f}x", f"{row.cpu_ratio:.2f}x"),
        )
        for row in rows
    )
    _print(console, f"{title}; minima of single calls, sides in turns", columns, cells)


def print_roofs(console: Console, roofs: Sequence[Roof], machines: Iterable[Machine]) -> None:
    """Print the rates of our side, and those that the machine reaches."""
    for machine in machines:
        console.print(f"machine: {machine.gb_s:.1f} GB/s, {machine.gflop_s:.1f} GFLOP/s ({machine.how})")
    columns = ("op", "setting", "dtype", "MB", "GFLOP", "FLOP/byte", "GB/s", "GFLOP/s", "bound", "of roofline")
    cells = []
    for roof in roofs:
        each = roof.as_json()
        cells.append(
            (
                *(roof.op, roof.setting, roof.dtype, f"{each['bytes'] / 1e6:.1f}", f"{each['flops'] / 1e9:.3f}"),
                *(f"{each['flops_per_byte']:.1f}", f"{each['gb_s']:.1f}", f"{each['gflop_s']:.1f}", each["bound"]),
                f"{100 * each['share_of_roofline']:.0f} %",
            )
        )
    _print(console, "our side under the roofline", columns, cells)


def print_targets(console: Console, rows: Sequence[Row], device: str) -> None:
    """Print each target with the measured ratio."""
    cells = []
    for target in TARGETS:
        for row in rows:
            reached = target.reached(row, device)
            if reached is not None:
                verdict = "met" if reached >= target.ratio else "not met"
                what = f"{row.ours} against {row.baseline}"
                cells.append((row.op, row.setting, what, f"{reached:.2f}x {target.clock}", f"{target.ratio}x", verdict))
    _print(console, "targets", ("op", "setting", "what", "measured", "target", ""), cells)


def _print(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        words = column in ("op", "setting", "dtype", "ours", "baseline", "bound", "what")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
