"""The command `doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from visdeploy.cli.console import stdout, words

if TYPE_CHECKING:
    from visdeploy.diagnosis import Diagnosis


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Print the installed engines and operator libraries, what runs where, and what is missing.

    The exit code is 0 if bundles can run on at least one engine, 1 otherwise.
    """
    from visdeploy.diagnosis import doctor as run

    found = run()
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        _print(found)
    raise typer.Exit(0 if found.healthy else 1)


def _print(found: Diagnosis) -> None:
    engines = [(e.name, e.version or "-", "yes" if e.runs_bundles else "no", e.detail) for e in found.engines]
    stdout.print(words("engines", ("engine", "version", "runs bundles", "here"), engines))
    libraries = [(each.name, each.path or "-", each.detail) for each in found.libraries]
    stdout.print(words("operator libraries", ("for", "path", "offers"), libraries))
    if found.operators:
        places = list(dict.fromkeys(op.engine for op in found.operators))
        runs = {(op.op, op.engine): op.runs or "cannot run" for op in found.operators}
        rows = [(op, *(runs[op, place] for place in places)) for op in dict.fromkeys(op.op for op in found.operators)]
        stdout.print(words("operators", ("operator", *places), rows))
    reasons = dict.fromkeys((op.engine, op.why_not) for op in found.operators if op.why_not)
    for engine, reason in reasons:
        stdout.print(f"{engine}: not our kernel: {reason}", highlight=False)
    hints = [(each.name, each.hint) for each in found.engines] + [(each.name, each.hint) for each in found.libraries]
    for name, hint in hints:
        if hint:
            stdout.print(f"{name}: {hint}", highlight=False)
    if not found.healthy:
        stdout.print("No engine can run a bundle here: install ONNX Runtime as said above.", style="bold red")
