"""Checks of the outputs of a command: one rule for all commands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from visdeploy.outputs import Output, check_distinct, check_inputs_kept, check_new, check_writable
from visdeploy.space import check_space

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]


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
