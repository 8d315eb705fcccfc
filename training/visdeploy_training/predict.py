"""Prediction in PyTorch, with the runtime's own preprocessing and decoder: the reference for every export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visdeploy.errors import DataError
from visdeploy.methods import Decoder, create_decoder
from visdeploy.results import FrameResult, Track, VideoResult
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Feeder, Step, steps
from visdeploy_training.model import VISModel
from visdeploy_training.registry import get_method

Outputs = Mapping[str, npt.NDArray[Any]]


def predict_clip(
    model: VISModel, frames: Iterable[npt.NDArray[np.uint8]], *, name: str = "clip", fps: float = 0.0
) -> VideoResult:
    """Run a network over a video as the exported graph does: frame by frame, or in overlapping clips.

    Args:
        model: Network made by `create_model` or `load_checkpoint`; its mode is restored afterwards.
        frames: RGB uint8 `[h, w, 3]`, all of one size.
        name: Name of the result.
        fps: Frame rate of the result.

    Raises:
        DataError: There is no frame.
    """
    method = get_method(model.info.method)
    settings = method.inference(model.config)
    decoder = create_decoder(
        model.info.method,
        classes=model.info.classes,
        decode=settings.decode,
        tracking=settings.tracking,
        keep_tracks=True,
    )
    feeder = Feeder("frames", settings.window, fixed=not settings.any_length)
    size, prepared = _sized(frames, Preprocessor(settings.preprocessing))
    results: list[FrameResult] = []
    with _evaluation(model):
        for step, outputs in _steps(model, feeder, prepared):
            results += decoder.decode(outputs, step, height=size[0][0], width=size[0][1])
    results += decoder.finish()
    if not results:
        raise DataError(f"the clip {name!r} has no frame")
    return _video(results, decoder, name, fps)


def _sized(
    frames: Iterable[npt.NDArray[np.uint8]], preprocess: Preprocessor
) -> tuple[list[tuple[int, int]], Iterator[npt.NDArray[np.float32]]]:
    """Sizes of the frames, one more for each that is read, and the preprocessed frames."""
    sizes: list[tuple[int, int]] = []

    def prepared() -> Iterator[npt.NDArray[np.float32]]:
        for frame in frames:
            sizes.append((frame.shape[0], frame.shape[1]))
            yield preprocess(frame)

    return sizes, prepared()


def _steps(
    model: VISModel, feeder: Feeder, frames: Iterable[npt.NDArray[np.float32]]
) -> Iterator[tuple[Step, Outputs]]:
    """Every step of the exported function and its outputs; the state stays inside."""
    function: Any = get_method(model.info.method).online_step(model)
    device = next(model.parameters()).device
    state = function.initial_state(device)
    for step in steps(feeder, frames):
        with torch.inference_mode():
            tensor = torch.from_numpy(step.inputs[feeder.name]).to(device)
            outputs = dict(zip(function.output_names, function(tensor, *state.values()), strict=True))
        state = {name: outputs.pop(f"next_{name}") for name in state}
        yield step, {name: value.cpu().numpy() for name, value in outputs.items()}


@contextmanager
def _evaluation(model: VISModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _video(results: list[FrameResult], decoder: Decoder, name: str, fps: float) -> VideoResult:
    """Tracks of the whole clip, with the decision over all their frames."""
    tracks = {s.track_id: Track(s.track_id, s.label, s.score, scores=s.class_scores) for s in decoder.summaries()}
    for result in results:
        for instance in result:
            tracks[instance.track_id].masks[result.index] = instance.mask
    first = results[0]
    found = [track for track in tracks.values() if track.masks]
    return VideoResult(name, first.height, first.width, len(results), first.classes, found, fps=fps)
