"""Loading of a checkpoint into a network in evaluation mode, with the options of the export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visdeploy_training import convert_checkpoint, create_model, get_method
from visdeploy_training.model import VISModel


def load_model(
    path: Path,
    *,
    method: str | None = None,
    variant: str | None = None,
    classes: str | Sequence[str] | None = None,
    height: int | None = None,
    width: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> VISModel:
    """Create the network of a checkpoint.

    Args:
        path: Checkpoint file, own or official.
        method: Method of the checkpoint; default: recognised.
        variant: Variant of the checkpoint; default: recognised.
        classes: Class names in label order, or the name of a public list, for checkpoints without class names.
        height: Rows of the input, see `MethodConfig.input_size`.
        width: Columns of the input.
        overrides: Settings to change, see `MethodConfig.export_settings`.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not match the method.
        ConfigError: An override is unknown, cannot be changed at export, or has an invalid value.
    """
    made = convert_checkpoint(path, method=method, variant=variant, classes=classes)
    made.report.raise_on_problem()
    changed = dict(made.info.overrides)
    base = get_method(made.method).variants[made.variant]
    config = dataclasses.replace(base, num_classes=len(made.classes), **changed)
    changed |= config.export_settings(overrides or {}) | config.input_size(height, width)
    model = create_model(made.method, made.variant, classes=made.classes, **changed)
    model.load_state_dict(made.state)
    return model.eval()
