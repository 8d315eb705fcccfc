"""The door to export: everything behind it needs torch, nothing in front of it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visdeploy.bundle import Bundle
from visdeploy.optional import require


def export(checkpoint: str | Path, out: str | Path | None = None, **options: Any) -> Bundle:
    """Turn a checkpoint, ours or an official one, into a bundle with its parity certificate.

    Args:
        checkpoint: Checkpoint file.
        out: Bundle folder to write; by default the checkpoint's name with `.vis`.
        **options: See `visdeploy_export.export`.

    Returns:
        The opened bundle.

    Raises:
        DependencyError: The `export` extra is not installed.
        CheckpointError: The checkpoint cannot be read or does not fit.
        ExportError: The graph could not be made, or its certificate failed.
    """
    bundle: Bundle = require("visdeploy_export", extra="export", purpose="exporting a checkpoint").export(
        checkpoint, out, **options
    )
    return bundle
