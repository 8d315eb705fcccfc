"""Public entry to the exporter. It imports torch only when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visdeploy.arguments import check_options, check_path
from visdeploy.bundle import Bundle
from visdeploy.optional import require


def export(checkpoint: str | Path, out: str | Path | None = None, **options: Any) -> Bundle:
    """Export a checkpoint, own or official, to a bundle with a parity certificate.

    Args:
        checkpoint: Checkpoint file.
        out: Bundle folder to write; default: name of the checkpoint with the ending `.vis`.
        **options: `method`, `variant`, `classes` (where the file does not state them), `height` and `width` of the
            input, `overrides` (a map from setting to value), `certify_on` (a video) and `certify_frames`, `overwrite`;
            see `visdeploy_export.export` for all of them.

    Returns:
        The opened bundle.

    Raises:
        ConfigError: An option is unknown or invalid.
        DependencyError: The `export` extra is not installed.
        CheckpointError: The checkpoint cannot be read or does not match the method.
        ExportError: The graph cannot be exported, or its certificate failed.
    """
    check_path(checkpoint, "path of a checkpoint")
    if out is not None:
        check_path(out, "path of a bundle")
    run = require("visdeploy_export", extra="export", purpose="exporting a checkpoint").export
    check_options(options, run, "an export")
    bundle: Bundle = run(checkpoint, out, **options)
    return bundle
