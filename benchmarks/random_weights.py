"""Checkpoints with random weights that find objects, to measure speed, which does not depend on the weights."""

from __future__ import annotations

from pathlib import Path

import torch

from visdeploy_training import create_model, get_method, save_checkpoint


def random_checkpoint(path: Path, method: str, variant: str, *, frames: int | None = None, objects: int = 15) -> Path:
    """Save a network of a method, with the same weights for the same arguments.

    Args:
        path: File to write.
        method: Name of the method.
        variant: Name of its variant.
        frames: Frames of a window of a clip method, with an overlap of a third; by default as in the variant.
        objects: Number of objects in an image, for methods with a variable number.
    """
    found = get_method(method)
    changes = {} if frames is None else {"window": frames, "overlap": frames // 3}
    torch.manual_seed(0)
    model = create_model(method, variant, **found.variants[variant].named(changes)).eval()
    found.show_objects(model, objects)
    return save_checkpoint(model, path)
