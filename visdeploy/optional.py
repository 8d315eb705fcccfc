"""Optional dependencies: imported on first use, and named with their extra when absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from visdeploy.errors import DependencyError


def require(module: str, *, extra: str, purpose: str, hint: str = "") -> ModuleType:
    """Import a module that only an extra brings.

    Args:
        module: Import name.
        extra: Extra of this package that installs it.
        purpose: What it is needed for, as a noun phrase.
        hint: What to do instead of installing the extra; for modules that more than one extra brings.

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
