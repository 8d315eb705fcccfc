"""`python -m tests.goldens FOLDER`: the worst error of every stage; exit code 1 beyond the manifest's tolerance."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from . import run
from .core import Report, Row


def table(report: Report) -> Table:
    """Return one line per file and stage, with the worst of all its comparisons."""
    view = Table("file", "stage", "compared", "worst error", "of tolerance", "")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault((row.file, row.stage), []).append(row)
    for (file, stage), rows in groups.items():
        error, excess = max(r.error for r in rows), max(r.excess for r in rows)
        verdict = "[green]ok[/]" if all(r.ok for r in rows) else "[red bold]FAIL[/]"
        share = "exact" if excess == 0 else f"{excess:.1%}" if np.isfinite(excess) else "beyond"
        view.add_row(file, stage.replace("[", r"\["), str(len(rows)), f"{error:.3g}", share, verdict)
    return view


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.goldens", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with manifest.json and npz files")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="use these npz files alone")
    options = parser.parse_args(arguments)
    torch.use_deterministic_algorithms(True)
    start = time.perf_counter()
    report = run(options.folder, only=tuple(options.only))
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table(report))
    for row in [r for r in report.rows if not r.ok][:40]:
        console.print(f"[red]{row.file}: {row.key}: error {row.error:.4g}, {row.excess:.3g} x tolerance[/]")
    for key in report.unchecked[:40]:
        console.print(f"[red]not checked: {key}[/]", highlight=False)
    for file in report.absent:
        console.print(f"absent: {file}")
    console.print(
        f"{report.checked} stored keys checked, {len(report.unchecked)} not checked, "
        f"{sum(not r.ok for r in report.rows)} of {len(report.rows)} comparisons beyond tolerance, "
        f"{time.perf_counter() - start:.0f} s: " + ("passed" if report.ok else "FAILED")
    )
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
