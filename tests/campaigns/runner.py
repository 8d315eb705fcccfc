"""Runs trials in a process of their own, so that a hang or a crash is an outcome and not the end of the campaign."""

from __future__ import annotations

import logging
import multiprocessing
import re
import resource
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from tests.campaigns.trials import Finding, Kind, Outcome, generator, judge

LIMIT_S = 60.0
"""Seconds after which a trial counts as hanging; the slowest good one takes about one."""
MEMORY = 1 << 30
"""Bytes that a trial may need above those of its process."""
KINDS = ("checkpoints", "bundles", "videos", "annotations", "streams", "api")


def load_kind(name: str) -> Kind:
    """Return a kind by its name, which is that of its module."""
    kind: Kind = import_module(f"tests.campaigns.{name}").KIND
    return kind


def run(kind: str, numbers: Sequence[int], folder: Path, *, limit: float = LIMIT_S) -> Iterator[tuple[int, Finding]]:
    """Yield the finding of every trial, in order.

    Args:
        kind: Name of the kind.
        numbers: Numbers of the trials.
        folder: Folder for what the trials share.
        limit: Seconds after which a trial counts as hanging.
    """
    process, connection = None, None
    for number in numbers:
        if process is None or connection is None:
            process, connection = _start(kind, folder)
        connection.send(number)
        label = f"trial {number}"
        try:
            finding = connection.recv() if connection.poll(limit) else Finding(Outcome.HANG, label, f"{limit:.0f} s")
        except EOFError:
            process.join()
            finding = Finding(Outcome.CRASH, label, f"exit status {process.exitcode}")
        if finding.outcome in (Outcome.HANG, Outcome.CRASH):
            process.kill()
            process.join()
            process, connection = None, None
        yield number, finding
    if process is not None and connection is not None:
        connection.send(None)
        process.join()


def _start(kind: str, folder: Path) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(kind, folder, theirs), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(600) or ours.recv() != "ready":  # imports and preparations do not count
        raise RuntimeError(f"the kind {kind!r} could not be prepared")
    return process, ours


def _serve(name: str, folder: Path, connection: Connection) -> None:
    logging.disable(logging.CRITICAL)  # thousands of warnings about damage that was made on purpose
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = load_kind(name)
    kind.prepare(folder)
    connection.send("ready")
    while (number := connection.recv()) is not None:
        work = Path(tempfile.mkdtemp(dir=folder))
        base = _reset_peak()
        finding = judge(kind.trial(number, generator(kind, number), work))
        if finding.outcome.good and (grown := _status("VmHWM") - base) > MEMORY:
            finding = Finding(Outcome.MEMORY, finding.label, f"{grown >> 20} MiB")
        shutil.rmtree(work, ignore_errors=True)
        connection.send(finding)


def _reset_peak() -> int:
    """Start a new measurement of the peak, and return the bytes in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0
