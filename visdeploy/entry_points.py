"""What other packages add to visdeploy, found through their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from visdeploy.errors import DependencyError

METHODS = "visdeploy.methods"
"""Group of decoders: method name → subclass of `visdeploy.methods.Decoder`."""
TRAINING_METHODS = "visdeploy_training.methods"
"""Group of networks: method name → `visdeploy_training.method.Method`."""
EXPORT_METHODS = "visdeploy_export.methods"
"""Group of step graphs: method name → function from a network to `visdeploy_export.step.StepGraph`."""


def names(group: str) -> list[str]:
    """The names that installed packages give in a group."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str, *, fits: Callable[[Any], bool], expected: str) -> Any | None:
    """The object that an installed package gives under a name; None if there is none.

    Args:
        group: Group of entry points.
        name: Name in the group.
        fits: Whether an object is what the group is for.
        expected: The same in words, for the message.

    Raises:
        DependencyError: The object cannot be imported or does not fit, or several packages give one of this name.
    """
    points = list(entry_points(group=group, name=name))
    if not points:
        return None
    if len({(point.value, _package(point)) for point in points}) > 1:
        raise DependencyError(
            f"several packages give {name!r} in the group {group!r} of entry points",
            seen=", ".join(sorted(_package(point) for point in points)),
            expected="one package",
            hint="Uninstall all but one of them.",
        )
    what = f"the entry point {name!r} = {points[0].value!r} of the package {_package(points[0])!r}, group {group!r},"
    try:
        found = points[0].load()
    except Exception as error:  # whatever the package does when it is imported
        raise DependencyError(
            f"{what} cannot be loaded",
            seen=f"{type(error).__name__}: {str(error)[:200]}",
            hint="Reinstall or update that package.",
        ) from error
    if not fits(found):
        raise DependencyError(
            f"{what} is not what the group is for",
            seen=repr(found)[:120],
            expected=expected,
            hint="Update that package.",
        )
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
