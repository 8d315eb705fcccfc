"""The command `sign`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from visdeploy.bundle_files import SIGNATURE
from visdeploy.cli.console import stdout
from visdeploy.cli.models import BundlePath
from visdeploy.cli.outputs import Overwrite
from visdeploy.outputs import Output, check_new

PASSWORD = "VISDEPLOY_KEY_PASSWORD"


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command()(sign)


def sign(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option(metavar="KEY", help="Private key (PEM) on the curve P-256, P-384 or P-521.")],
    overwrite: Overwrite = False,
) -> None:
    """Sign a bundle with its engines. `verify --key PUBLIC` checks the signature.

    The password of a protected key is taken from VISDEPLOY_KEY_PASSWORD, or asked for.
    """
    from visdeploy.signing.bundles import sign as run

    if not overwrite:
        check_new([Output(bundle / SIGNATURE)], hint="Pass --overwrite to replace it.")
    written = run(bundle, key, password=_password(key), overwrite=overwrite)
    stdout.print(f"wrote {written}", highlight=False)


def _password(key: Path) -> str | None:
    """Return the password of a protected key; None if the key has none, or nobody can be asked."""
    from visdeploy.signing.keys import is_protected

    if not is_protected(key):
        return None
    if given := os.environ.get(PASSWORD):
        return given
    answer: str | None = typer.prompt(f"Password of {key}", hide_input=True, err=True) if sys.stdin.isatty() else None
    return answer
