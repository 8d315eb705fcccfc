"""Comparison of a network with recorded outputs of its reference, stage by stage: `python -m tests.goldens FOLDER`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from .core import Golden, Report, StateDict

ADAPTERS = {
    "defvis": "tests.goldens.defvis",
    "tevit": "tests.goldens.tevit",
    "tpr": "tests.goldens.tpr",
    "vishv": "tests.goldens.vishv",
    "visolo": "tests.goldens.visolo",
}


def run(folder: Path, *, edit: Callable[[StateDict], None] | None = None, only: tuple[str, ...] = ()) -> Report:
    """Compare everything in a golden folder; the adapter is chosen by the manifest's `model`."""
    golden = Golden(Path(folder), edit=edit, only=only)
    model = golden.manifest["model"]
    if model not in ADAPTERS:
        raise SystemExit(f"no adapter for model {model!r}; known: {', '.join(ADAPTERS)}")
    importlib.import_module(ADAPTERS[model]).run(golden)
    return golden.finish()
