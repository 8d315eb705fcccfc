"""The recipes of this package: their names, summaries and texts."""

from __future__ import annotations

from dataclasses import dataclass

from visdeploy_training.engine.loading import find_recipe, load_recipe, shipped_recipes


@dataclass(frozen=True)
class RecipeSummary:
    """Summary of a recipe of this package.

    Attributes:
        name: Name of the recipe, which `visdeploy train` accepts.
        network: Method and variant.
        summary: First sentence of the comment at its start.
    """

    name: str
    network: str
    summary: str


def list_recipes() -> list[RecipeSummary]:
    """Return a summary of each recipe of this package, in alphabetical order of their names."""
    return [_summary(name) for name in shipped_recipes()]


def recipe_text(name: str) -> str:
    """Return the YAML text of a recipe of this package, or of a file, with its comments.

    Raises:
        ConfigError: There is no such recipe, or it is invalid.
    """
    load_recipe(name)
    return find_recipe(name).read_text(encoding="utf-8")


def _summary(name: str) -> RecipeSummary:
    recipe = load_recipe(name)
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    text = " ".join(comment)
    first = text.split(". ")[0].rstrip(".")
    return RecipeSummary(name, f"{recipe.method} {recipe.variant}", first)
