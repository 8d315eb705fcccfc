"""Prediction in PyTorch, with the runtime's own preprocessing and decoder: the reference for every export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visdeploy.errors import DataError
from visdeploy.methods import Decoder, create_decoder
from visdeploy.preprocess import Preprocessor
from visdeploy.results import FrameResult, Track, VideoResult
from visdeploy_training.model import VISModel
from visdeploy_training.registry import get_method

Outputs = Mapping[str, npt.NDArray[Any]]


def predict_clip(
    model: VISModel, frames: Iterable[npt.NDArray[np.uint8]], *, name: str = "clip", fps: float = 0.0
) -> VideoResult:
    """Run a network over a clip, frame by frame as the exported graph does.

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
    results: list[FrameResult] = []
    for index, (frame, outputs) in enumerate(_steps(model, frames)):
        height, width = frame.shape[:2]
        results.append(decoder.step(outputs, index=index, timestamp=0.0, height=height, width=width))
    if not results:
        raise DataError(f"the clip {name!r} has no frame")
    return _video(results, decoder, name, fps)


def _steps(model: VISModel, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[tuple[npt.NDArray[np.uint8], Outputs]]:
    """Every frame and the outputs of the step function for it; the state stays inside."""
    method = get_method(model.info.method)
    preprocess = Preprocessor(method.inference(model.config).preprocessing)
    step: Any = method.online_step(model)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        state = step.initial_state(device)
        for frame in frames:
            with torch.inference_mode():
                tensor = torch.from_numpy(preprocess(frame)).to(device)
                outputs = dict(zip(step.output_names, step(tensor, *state.values()), strict=True))
            state = {name: outputs.pop(f"next_{name}") for name in state}
            yield frame, {name: value.cpu().numpy() for name, value in outputs.items()}
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
