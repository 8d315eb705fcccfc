"""Checkpoint → network in evaluation mode, with the options of the export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visdeploy_training import convert_checkpoint, create_model
from visdeploy_training.model import VISModel


def load_model(
    path: Path,
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
    **overrides: Any,
) -> VISModel:
    """Make the network of a checkpoint.

    Args:
        path: Checkpoint file, ours or an official one.
        method: Method of the checkpoint; recognised by default.
        variant: Variant of the checkpoint; recognised by default.
        classes: Class names in label order, or the name of a public list, where the checkpoint has none.
        overrides: Fields of the variant's configuration to change; None leaves one as it is.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not fit.
        ConfigError: An override is unknown or has a value that cannot work.
    """
    made = convert_checkpoint(path, method=method, variant=variant, classes=classes)
    made.report.raise_on_problem()
    changed = dict(made.info.overrides) | {name: value for name, value in overrides.items() if value is not None}
    model = create_model(made.method, made.variant, classes=made.classes, **changed)
    model.load_state_dict(made.state)
    return model.eval()
