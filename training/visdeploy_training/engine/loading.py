"""Loading of recipes from YAML files, with `key=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from visdeploy.errors import ConfigError, suggestion
from visdeploy_training.engine.description import field_names
from visdeploy_training.engine.recipe import Recipe
from visdeploy_training.overrides import parse_override


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("visdeploy_training") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: YAML file, or the name of a shipped recipe.
        overrides: `key=value` with dots between levels and numbers for list positions, for example
            `optim.lr=3e-4` or `augment.1.resize.longest=800`; values are YAML.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown or invalid; the message names it.
    """
    path = find_recipe(recipe)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipe {path}", seen=str(error).replace("\n", " ")[:160]) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a recipe", seen=type(data).__name__, expected="a mapping of fields to values")
    for text in overrides:
        _override(data, text)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _invalid(path, error) from error


def _invalid(path: Path, error: ValidationError) -> ConfigError:
    """Return the error that names the invalid fields, and the ones that unknown fields resemble."""
    parts, hints = [], []
    for item in error.errors():
        field = ".".join(str(p) for p in item["loc"]) or "recipe"
        text = item["msg"].removeprefix("Value error, ")
        parts.append(f"field {field!r}: {text}, seen {str(item.get('input'))[:60]!r}")
        if item["type"] == "extra_forbidden" or text.startswith("Extra inputs are not permitted"):
            hints.append(suggestion(item["loc"][-1], field_names(item["loc"][:-1])))
    hint = " ".join(dict.fromkeys(filter(None, hints)))
    return ConfigError(
        f"{path}: {'; '.join(parts)}", hint=f"{hint} `visdeploy recipes fields` describes the fields.".strip()
    )


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe.

    Args:
        recipe: YAML file, or the name of a shipped recipe.

    Raises:
        ConfigError: There is no such file or recipe.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    known = shipped_recipes()
    if str(recipe) in known:
        return Path(str(resources.files("visdeploy_training") / "recipes" / f"{recipe}.yaml"))
    raise ConfigError(
        f"no such recipe: {recipe}",
        expected="a YAML file, or the name of a shipped recipe",
        hint=f"{suggestion(path.name.removesuffix('.yaml'), known)} `visdeploy recipes` lists them.".strip(),
    )


def _override(data: dict[str, Any], text: str) -> None:
    key, value = parse_override(text)
    place: Any = data
    *parents, last = key.split(".")
    try:
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the override {key!r} matches no field of the recipe",
            seen=text,
            hint="Check each level of the key; positions in lists are numbers from 0.",
        ) from error
