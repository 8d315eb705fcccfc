"""A bundle's model on both engines, and steps made of arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from visdeploy.backends import open_backend
from visdeploy.bundle import Bundle
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.windows import Step
from visdeploy_export.methods import build_step
from visdeploy_training import load_checkpoint
from visdeploy_training.torch_backend import TorchBackend


def in_pytorch(bundle: Bundle, checkpoint: Path | None = None) -> Pipeline:
    """Return the model of a bundle in eager PyTorch.

    Args:
        bundle: The bundle.
        checkpoint: The checkpoint it was exported from; by default the one beside it, of its name.
    """
    model, _ = load_checkpoint(checkpoint or bundle.path.with_suffix(".safetensors"))
    return Pipeline(bundle.manifest, TorchBackend(build_step(model.eval()).module, bundle.manifest))


def in_onnx_runtime(bundle: Bundle) -> Pipeline:
    """Return the model of a bundle in ONNX Runtime, on one thread of the CPU."""
    return Pipeline(bundle.manifest, open_backend(bundle, device="cpu", threads=1))


def step_of(inputs: Mapping[str, npt.NDArray[Any]], first: int = 0) -> Step:
    """Return a step of preprocessed frames that no step before it has seen.

    Args:
        inputs: The graph's inputs; the frames are the one of rank 4.
        first: Position of the first frame in its stream.
    """
    (length,) = (len(each) for each in inputs.values() if each.ndim == 4)
    return Step(inputs, first, (0.0,) * length, length)
