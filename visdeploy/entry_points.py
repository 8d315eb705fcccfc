"""What other packages add to visdeploy, found through their entry points."""

from __future__ import annotations

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


def load(group: str, name: str) -> Any | None:
    """The object that an installed package gives under a name; None if there is none.

    Args:
        group: Group of entry points.
        name: Name in the group.

    Raises:
        DependencyError: The object cannot be imported, or several packages give one of this name.
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
    try:
        return points[0].load()
    except Exception as error:  # whatever the package does when it is imported
        raise DependencyError(
            f"{name!r} of the package {_package(points[0])!r} cannot be loaded",
            seen=f"{type(error).__name__}: {str(error)[:200]}",
            expected=f"the entry point {points[0].value!r} of the group {group!r} to be importable",
            hint="Reinstall or update that package.",
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
