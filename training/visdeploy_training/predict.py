"""Prediction in PyTorch, with the runtime's own preprocessing and decoder: the reference for every export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
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
    """Run a network over a clip as the exported graph does: frame by frame, or the whole clip in one step.

    Args:
        model: Network made by `create_model` or `load_checkpoint`; its mode is restored afterwards.
        frames: RGB uint8 `[h, w, 3]`, all of one size.
        name: Name of the result.
        fps: Frame rate of the result.

    Raises:
        DataError: There is no frame, or more than one step of the method takes.
    """
    method = get_method(model.info.method)
    settings = method.inference(model.config)
    if method.clip_tracks is not None:
        return _predict_at_once(model, list(islice(frames, settings.window.length + 1)), name, fps)
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
    with _evaluation(model):
        state = step.initial_state(device)
        for frame in frames:
            with torch.inference_mode():
                tensor = torch.from_numpy(preprocess(frame)).to(device)
                outputs = dict(zip(step.output_names, step(tensor, *state.values()), strict=True))
            state = {name: outputs.pop(f"next_{name}") for name in state}
            yield frame, {name: value.cpu().numpy() for name, value in outputs.items()}


@contextmanager
def _evaluation(model: VISModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _predict_at_once(model: VISModel, frames: Sequence[npt.NDArray[np.uint8]], name: str, fps: float) -> VideoResult:
    """A clip of at most the window's length in one step; a shorter one is repeated until it is full."""
    method = get_method(model.info.method)
    settings = method.inference(model.config)
    length = settings.window.length
    if not 0 < len(frames) <= length or method.clip_tracks is None:
        raise DataError(
            f"the clip {name!r} has no frame" if not frames else f"the clip {name!r} is longer than one step takes",
            seen=f"{len(frames)} frames or more",
            expected=f"1 to {length}",
            hint="Predict longer videos with an exported bundle, in windows." if frames else "",
        )
    preprocess = Preprocessor(settings.preprocessing)
    step: Any = method.online_step(model)
    order = [t % len(frames) for t in range(length)]
    tensors = [torch.from_numpy(preprocess(frame)) for frame in frames]
    height, width = frames[0].shape[:2]
    with _evaluation(model), torch.inference_mode():
        clip = torch.cat([tensors[t] for t in order]).to(next(model.parameters()).device)
        outputs = dict(zip(step.output_names, step(clip), strict=True))
        tracks = method.clip_tracks(outputs, model.config, length=len(frames), height=height, width=width)
    return VideoResult(name, height, width, len(frames), model.info.classes, tracks, fps=fps)


def _video(results: list[FrameResult], decoder: Decoder, name: str, fps: float) -> VideoResult:
    """Tracks of the whole clip, with the decision over all their frames."""
    tracks = {s.track_id: Track(s.track_id, s.label, s.score, scores=s.class_scores) for s in decoder.summaries()}
    for result in results:
        for instance in result:
            tracks[instance.track_id].masks[result.index] = instance.mask
    first = results[0]
    found = [track for track in tracks.values() if track.masks]
    return VideoResult(name, first.height, first.width, len(results), first.classes, found, fps=fps)
