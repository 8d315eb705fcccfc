"""Methods as PyTorch modules, their losses, data sets and recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visdeploy_training.checkpoint import Checkpoint, KeyReport, save_checkpoint, start_from
from visdeploy_training.convert import convert_checkpoint, load_checkpoint
from visdeploy_training.model import ModelInfo, VISModel
from visdeploy_training.registry import create_model, get_method

__all__ = [
    "Checkpoint",
    "KeyReport",
    "ModelInfo",
    "VISModel",
    "convert_checkpoint",
    "create_model",
    "get_method",
    "load_checkpoint",
    "save_checkpoint",
    "start_from",
    "train",
]


def train(recipe: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = True) -> Path:
    """Train a network from a recipe; see `visdeploy_training.engine.train`."""
    from visdeploy_training.engine import train as run  # Lightning takes seconds to import; export does not need it

    return run(recipe, overrides, overwrite=overwrite)
