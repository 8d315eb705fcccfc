"""Prediction in PyTorch with the pipeline of the runtime, for validation and as the reference of every export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
import numpy.typing as npt

from visdeploy.errors import DataError
from visdeploy.results import VideoResult
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.stream import whole_video
from visdeploy_training.model import VISModel
from visdeploy_training.registry import get_method, model_spec
from visdeploy_training.torch_backend import TorchBackend


def torch_pipeline(model: VISModel) -> Pipeline:
    """Create a pipeline that runs a network in eager PyTorch in the same way as its exported graph.

    Args:
        model: Network created by `create_model` or `load_checkpoint`, in evaluation mode.
    """
    spec = model_spec(model)
    return Pipeline(spec, TorchBackend(get_method(spec.method).online_step(model), spec))


def predict_clip(
    model: VISModel, frames: Iterable[npt.NDArray[np.uint8]], *, name: str = "clip", fps: float = 0.0
) -> VideoResult:
    """Run a network on a video in the same way as the exported graph: frame by frame, or in overlapping clips.

    Args:
        model: Network created by `create_model` or `load_checkpoint`; its mode is restored afterwards.
        frames: RGB uint8 `[h, w, 3]`, all of the same size.
        name: Name of the result.
        fps: Frame rate of the result.

    Raises:
        DataError: There are no frames.
        StreamError: The size of the frames changes.
    """
    ahead = iter(frames)
    first = next(ahead, None)
    if first is None:
        raise DataError(f"the clip {name!r} has no frames")
    with _evaluation(model):
        return whole_video(torch_pipeline(model), chain([first], ahead), name=name, fps=fps)


@contextmanager
def _evaluation(model: VISModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
