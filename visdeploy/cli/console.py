"""Tables and progress bars of the commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

# names of files and classes are shown as they are, also those like [red] or :star:
stdout = Console(soft_wrap=True, markup=False, emoji=False)
stderr = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)


def progress() -> Progress:
    """Return a progress bar on standard error, so that standard output can be piped."""
    return Progress(
        TextColumn("{task.description}", style="progress.description", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
    )


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Return a function that shows the current stage of a command, with the time since its start, on one line.

    The line is on standard error, replaced by that of the next stage and removed at the end. It is written only when a
    stage begins, because libraries that trace or compile may capture what is written meanwhile. Nothing is shown if
    standard error is not a terminal.
    """
    started = time.monotonic()

    def show(text: str) -> None:
        if stderr.is_terminal:
            line = f"{time.monotonic() - started:5.0f} s  {text}"
            stderr.file.write(f"\r\x1b[2K{line[: max(1, stderr.width - 1)]}")
            stderr.file.flush()

    try:
        yield show
    finally:
        if stderr.is_terminal:
            stderr.file.write("\r\x1b[2K")
            stderr.file.flush()


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Return a table of cells that are not wrapped."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def words(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """Return a table with a name and sentences in each row. Sentences are wrapped, names are not."""
    made = Table(title=title, title_justify="left", show_lines=False)
    for index, column in enumerate(columns):
        made.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        made.add_row(*row)
    return made


def facts(title: str, values: Mapping[str, Any]) -> Table:
    """Return a table of names and values in two columns."""
    made = Table(title=title, title_justify="left", show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for key, value in values.items():
        made.add_row(key, str(value))
    return made
