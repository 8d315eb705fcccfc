"""Methods of other packages, found through their entry points."""

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
    """Return the names that installed packages declare in a group."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str, *, fits: Callable[[Any], bool], expected: str) -> Any | None:
    """Load the object that an installed package declares under a name. Return None if there is none.

    Args:
        group: Group of entry points.
        name: Name in the group.
        fits: Decides whether an object is of the kind that the group requires.
        expected: Description of this kind, for the message.

    Raises:
        DependencyError: The object cannot be imported or is of the wrong kind, or several packages declare the name.
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
    except Exception as error:  # an import can raise anything
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
