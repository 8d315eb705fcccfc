"""Outputs of a command: their checks, one rule for all commands, and the options of their format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from visdeploy.errors import ConfigError
from visdeploy.outputs import Output, check_distinct, check_inputs_kept, check_new, check_writable
from visdeploy.space import check_space

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]


FormatOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Option of the format (numbering=motschallenge); repeatable."),
]


def parse_options(texts: Iterable[str] | None) -> dict[str, Any]:
    """Parse the values of `--option`: numbers, true or false, or text.

    Raises:
        ConfigError: A text has no key or no `=`, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        key, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not key or key in found:
            raise ConfigError(
                "malformed --option", seen=text[:100], expected="KEY=VALUE, each key once, as in filter_tracks=true"
            )
        try:
            found[key] = json.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


def check_outputs(outputs: Sequence[Output], inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Check the outputs of a command before it computes anything.

    Args:
        outputs: Files and folders that the command will write.
        inputs: Files and folders that it reads.
        overwrite: Replace existing outputs.

    Raises:
        OutputError: An output would replace an input or another output, cannot be written, exists already, or would not
            fit on its disk.
    """
    check_inputs_kept(outputs, inputs)
    check_distinct(outputs)
    if not overwrite:
        check_new(outputs, hint="Pass --overwrite to replace it, or choose another path.")
    check_writable(outputs)
    check_space(outputs)
