"""Registry of the transforms: those of this package, and those of other packages by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.transforms.base import Transform

GROUP = "visdeploy.transforms"
_REGISTERED: dict[str, type[Transform]] = {}
_T = TypeVar("_T", bound=type[Transform])


def register(transform: _T) -> _T:
    """Decorate a class of transforms: register it for recipes with its `name`.

    Raises:
        ConfigError: The name is already registered.
    """
    if transform.name in _REGISTERED:
        raise ConfigError("two transforms have the same name", seen=transform.name)
    _REGISTERED[transform.name] = transform
    return transform


def transform_names() -> list[str]:
    """Return the names of all transforms; those of other packages are not loaded."""
    return sorted({*_REGISTERED, *entry_points(group=GROUP).names})


def find_transform(name: str) -> type[Transform]:
    """Return the transform called `name`; a registered one takes precedence over an entry point of the same name.

    Raises:
        ConfigError: There is none, or its entry point cannot be loaded, is ambiguous, or is not a transform.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise ConfigError("unknown transform", seen=repr(name), expected=f"one of {transform_names()}")
    if len({point.value for point in found}) > 1:
        raise ConfigError(
            f"several packages provide a transform {name!r}",
            seen=", ".join(_described(point) for point in found),
            hint="Uninstall all but one of them.",
        )
    return _loaded(found[0])


def _loaded(point: EntryPoint) -> type[Transform]:
    try:
        found = point.load()
    except Exception as error:  # importing runs the other package's code, which may raise anything
        raise ConfigError(
            f"the transform {point.name!r} cannot be loaded from the entry point {_described(point)}",
            seen=f"{type(error).__name__}: {error}"[:200],
            hint="Repair or uninstall the package that declares it.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Transform)) or getattr(found, "name", None) != point.name:
        raise ConfigError(
            f"the entry point {_described(point)} is not the transform {point.name!r}",
            seen=repr(found)[:100],
            expected=f"a subclass of {Transform.__module__}.Transform whose `name` is {point.name!r}",
        )
    return found


def _described(point: EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist else ""
    return f"{GROUP}: {point.name} = {point.value}{package}"
