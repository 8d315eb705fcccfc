"""The commands `recipes list`, `recipes show` and `recipes fields`."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated

import typer

from visdeploy.cli.console import stdout, words
from visdeploy.optional import require

commands = typer.Typer(
    name="recipes",
    help="List the shipped recipes of trainings, print one, and describe the fields of a recipe.",
    invoke_without_command=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    app.add_typer(commands)


@commands.callback()
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_all()


@commands.command("list")
def list_all() -> None:
    """List the shipped recipes."""
    found = _training("catalogue").list_recipes()
    rows = [(each.name, f"{each.network}. {each.summary}.") for each in found]
    stdout.print(words("recipes", ("recipe", "network and purpose"), rows))
    stdout.print("visdeploy recipes show RECIPE prints one, to be copied and changed", highlight=False)


@commands.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or YAML file.")],
) -> None:
    """Print a recipe as YAML: redirect it to a file of your own, and change that."""
    typer.echo(_training("catalogue").recipe_text(recipe), nl=False)


@commands.command()
def fields(
    part: Annotated[
        str,
        typer.Argument(
            metavar="[PART]",
            help="recipe, train, val, optim, optim.groups, optim.schedule, a transform, or a method.",
        ),
    ] = "recipe",
) -> None:
    """Describe the fields of a recipe or of a part of it: types, defaults, meaning.

    The fields of `model` are those of the method, those of `augment` are the transforms.
    """
    found = _training("description").describe(part)
    rows = [(each.name, each.type, each.default, each.meaning) for each in found]
    stdout.print(words(f"fields of {part}", ("field", "type", "default", "meaning"), rows))


def _training(module: str) -> ModuleType:
    return require(f"visdeploy_training.engine.{module}", extra="train", purpose="reading recipes")
