"""Command line interface of the public API."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import typer

from visdeploy.cli import doctor, models, protocol, recipes, runs, signing
from visdeploy.cli.console import stderr
from visdeploy.cli.signals import terminating
from visdeploy.errors import VisdeployError

app = typer.Typer(
    name="visdeploy",
    help="Video instance segmentation: train, export once, run anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models.register(app)
runs.register(app)
signing.register(app)
protocol.register(app)
recipes.register(app)
doctor.register(app)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log progress, and show tracebacks."),
) -> None:
    from rich.logging import RichHandler

    if version:
        from visdeploy import __version__

        typer.echo(__version__)
        raise typer.Exit
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(console=stderr, show_path=False)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; print a `VisdeployError` as one line on standard error and exit with code 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names that the terminal cannot show
    try:
        with terminating():
            app(words)
    except VisdeployError as error:
        if {"-v", "--verbose"} & set(words[:1]):
            raise
        stderr.print(type(error).__name__, style="bold red", end=": ", highlight=False)
        stderr.print(str(error), highlight=False)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`| head`). Redirect stdout so that the flush at exit succeeds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
