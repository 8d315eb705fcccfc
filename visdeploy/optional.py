"""Import of optional dependencies, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from visdeploy.errors import DependencyError


def require(module: str, *, extra: str, purpose: str, hint: str = "") -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: Import name of the module.
        extra: Extra of visdeploy that installs it.
        purpose: Feature that needs the module, as a noun phrase, for the error message.
        hint: What to do in place of installing the extra, for modules that more than one extra installs.

    Raises:
        DependencyError: The module, or something it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"{purpose} needs the module {error.name!r}, which is not installed",
            hint=hint or f"Install it with: pip install 'visdeploy[{extra}]'",
        ) from error
