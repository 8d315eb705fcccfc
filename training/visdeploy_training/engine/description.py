"""Descriptions of the fields of recipes, from the models themselves: name, type, default, meaning."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from visdeploy.errors import ConfigError, suggestion
from visdeploy_training.datasets.transforms.base import Transform
from visdeploy_training.datasets.transforms.registry import find_transform, transform_names
from visdeploy_training.engine.recipe import Recipe
from visdeploy_training.registry import get_method, method_names

REQUIRED = "required"
_PARTS = ("train", "val", "optim", "optim.groups", "optim.schedule")
_KIND = "Name of the schedule; its parameters follow."
_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class FieldDescription:
    """Field of a recipe, of a part of it, or of the configuration of a method.

    Attributes:
        name: Name of the field.
        type: Its values, in words.
        default: Its default as in YAML; `required` if there is none.
        meaning: Description.
    """

    name: str
    type: str
    default: str
    meaning: str


def sections() -> list[str]:
    """Return the names of the parts of a recipe that have fields: its own parts, the transforms, and the methods."""
    return ["recipe", *_PARTS, *transform_names(), *method_names()]


def describe(section: str = "recipe") -> list[FieldDescription]:
    """Return the fields of a part of a recipe.

    Args:
        section: One of `sections()`; the part `model` has the fields of the method, and is called as the method.

    Raises:
        ConfigError: There is no such part, or a transform of another package cannot be loaded.
        DependencyError: A method of another package cannot be loaded.
    """
    known = sections()
    if section not in known:
        hint = suggestion(section, known)
        if section in ("model", "augment"):
            kind, names = ("method", method_names()) if section == "model" else ("transform", transform_names())
            hint = f"The fields in `{section}` are those of a {kind}: {', '.join(names)}."
        raise ConfigError("no such part of a recipe", seen=section, expected=", ".join(known), hint=hint)
    return [field for model in _classes(section) for field in _fields(model)]


def _classes(section: str) -> list[type[Any]]:
    if section == "recipe":
        return [Recipe]
    if section in _PARTS:
        models: list[type[BaseModel]] = [Recipe]
        for name in section.split("."):
            models = [inner for each in models for inner in _models(each.model_fields[name].annotation)]
        return [*models]
    if section in transform_names():
        return [find_transform(section)]
    return [type(next(iter(get_method(section).variants.values())))]


def field_names(place: Sequence[int | str]) -> list[str]:
    """Return the names of the fields at a place in a recipe, such as `("optim", "groups", 0)`."""
    models: list[type[BaseModel]] = [Recipe]
    for name in (part for part in place if isinstance(part, str)):
        inner = [m for each in models if name in each.model_fields for m in _models(each.model_fields[name].annotation)]
        if not inner and name in transform_names():
            inner = [find_transform(name)]
        models = inner or models
    return [name for model in models for name in model.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Iterate over the models in a type; transforms are found by name instead."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        if annotation is not Transform:
            yield annotation
        return
    for inner in get_args(annotation):
        yield from _models(inner)


def _fields(model: type[Any]) -> Iterator[FieldDescription]:
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        meanings |= _meanings(inspect.cleandoc(base.__doc__ or ""))
    if issubclass(model, BaseModel):
        for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind"):
            default = field.get_default(call_default_factory=True)
            shown = REQUIRED if default is PydanticUndefined else _shown(default)
            meaning = meanings.get(name, _KIND if name == "kind" else "")
            yield FieldDescription(name, _spelled(field.annotation), shown, meaning)
        return
    hints = get_type_hints(model)
    for each in dataclasses.fields(model):
        shown = REQUIRED if each.default is dataclasses.MISSING else _shown(each.default)
        yield FieldDescription(each.name, _spelled(hints[each.name]), shown, meanings.get(each.name, ""))


def _meanings(text: str) -> dict[str, str]:
    """Return the descriptions in the section `Attributes` of a docstring, by name."""
    _, _, part = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    for name, meaning in re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", part, re.MULTILINE):
        found[name] = re.sub(r"\s+", " ", meaning)
    return found


def _spelled(annotation: Any) -> str:
    """Return a type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _spelled(inner[0])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_spelled(each) for each in inner))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"list of {len(inner)}: {', '.join(dict.fromkeys(_spelled(each) for each in inner))}"
    if origin in (list, tuple):
        return f"list of {_spelled(inner[0])}"
    if origin is dict or annotation is Mapping:
        return "mapping"
    if inspect.isclass(annotation) and issubclass(annotation, Transform):
        return "transform"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "mapping"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _shown(value: Any) -> str:
    """Return a default as it would be written in a recipe."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return str(getattr(value, "kind", "")) if list(type(value).model_fields) == ["kind"] else "{}"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value) if value != "" else '""'
