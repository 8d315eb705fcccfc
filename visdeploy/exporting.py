"""Public entry to the exporter. It imports torch only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visdeploy.arguments import check_path
from visdeploy.bundle import Bundle
from visdeploy.optional import require


def export(checkpoint: str | Path, out: str | Path | None = None, **options: Any) -> Bundle:
    """Export a checkpoint, own or official, to a bundle with a parity certificate.

    Args:
        checkpoint: Checkpoint file.
        out: Bundle folder to write; default: name of the checkpoint with the ending `.vis`.
        **options: See `visdeploy_export.export`.

    Returns:
        The opened bundle.

    Raises:
        DependencyError: The `export` extra is not installed.
        CheckpointError: The checkpoint cannot be read or does not match the method.
        ExportError: The graph cannot be exported, or its certificate failed.
    """
    check_path(checkpoint, "path of a checkpoint")
    if out is not None:
        check_path(out, "path of a bundle")
    bundle: Bundle = require("visdeploy_export", extra="export", purpose="exporting a checkpoint").export(
        checkpoint, out, **options
    )
    return bundle
