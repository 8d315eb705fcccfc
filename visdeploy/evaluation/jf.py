"""J (region similarity) and F (contour accuracy) of the DAVIS benchmark for unsupervised segmentation.

The 20 predictions with the highest scores in each video are assigned to the objects, regardless of class. Where
predictions overlap, the pixel belongs to the one with the highest score. Crowds and videos with fewer than four frames
are excluded. A frame in which both object and prediction are absent scores 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.evaluation.annotations import Annotation, AnnotationSet
from visdeploy.evaluation.boundary import BoolArray, Contour, Window, contour_score, tolerance
from visdeploy.evaluation.predictions import Prediction
from visdeploy.masks import Mask

FloatArray = npt.NDArray[np.float64]

MAX_PROPOSALS = 20
MIN_FRAMES = 4
RECALL_THRESHOLD = 0.5
DECAY_BINS = 4
_MEANS = {
    "J_mean": "J",
    "F_mean": "F",
    "J_recall": "J_recall",
    "F_recall": "F_recall",
    "J_decay": "J_decay",
    "F_decay": "F_decay",
}


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """J and F of one object with its assigned prediction.

    Attributes:
        name: `{video folder}_{annotation id}`.
        row: Rank of the assigned prediction in its video, from 0; a rank beyond the predictions means none.
        region: J per frame, float64 `[F]`.
        contour: F per frame, float64 `[F]`.
    """

    name: str
    row: int
    region: FloatArray
    contour: FloatArray


def evaluate_jf(truth: AnnotationSet, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Compute mean, recall and decay of J and F over all objects, and the scores of each object and frame.

    Returns:
        The means, each -1 if there is no object; `by_object`, the scores of each object; `per_object` and `per_frame`,
        which reproduce the output of the DAVIS program: within a video it lists the scores in the order of the
        assigned predictions.
    """
    videos = list(_videos(truth, predictions))
    objects = {scores.name: scores for found in videos for scores in found}
    listed = {name: scores for found in videos for name, scores in _as_davis_lists(found)}
    per_object = {name: _object_numbers(scores) for name, scores in listed.items()}
    means = {
        name: float(np.mean([numbers[key] for numbers in per_object.values()])) if per_object else -1.0
        for name, key in _MEANS.items()
    }
    return {
        "JF_mean": (means["J_mean"] + means["F_mean"]) / 2,
        **means,
        "per_object": per_object,
        "per_frame": {name: {"J": s.region.tolist(), "F": s.contour.tolist()} for name, s in listed.items()},
        "by_object": {name: _object_numbers(scores) | _frame_numbers(scores) for name, scores in objects.items()},
    }


def _as_davis_lists(objects: Sequence[ObjectScores]) -> Iterator[tuple[str, ObjectScores]]:
    """Return names and scores as the DAVIS program prints them.

    Names are in the order of the objects, scores in descending order of the score of the assigned prediction. A name
    may therefore be listed with the scores of another object; the means do not depend on it.
    """
    ranked = sorted(objects, key=lambda scores: scores.row)
    return ((named.name, scores) for named, scores in zip(objects, ranked, strict=True))


def _videos(truth: AnnotationSet, predictions: Sequence[Prediction]) -> Iterator[list[ObjectScores]]:
    predicted: dict[int, list[Prediction]] = {}
    for prediction in predictions:
        predicted.setdefault(prediction.video_id, []).append(prediction)
    folders = Counter(video.name for video in truth.videos)
    for video in truth.videos:
        objects = [a for a in truth.annotations_by_video[video.id] if not a.crowd]
        if video.length < MIN_FRAMES or not objects:
            continue
        name = video.name if folders[video.name] == 1 else f"{video.name}#{video.id}"
        best = sorted(predicted.get(video.id, ()), key=lambda p: -p.score)[:MAX_PROPOSALS]
        yield _score_video(name, objects, best, (video.height, video.width))


def _score_video(
    name: str, objects: Sequence[Annotation], proposals: Sequence[Prediction], shape: tuple[int, int]
) -> list[ObjectScores]:
    """Assign proposals to objects one to one, by the mean of J and F over all frames."""
    from scipy.optimize import linear_sum_assignment

    frames = len(objects[0].masks)
    rows = max(len(proposals), len(objects))
    region, contour = np.zeros((2, rows, len(objects), frames))
    for frame in range(frames):
        region[..., frame], contour[..., frame] = _score_frame(objects, proposals, frame, rows, shape)
    assigned, columns = linear_sum_assignment(-(region.mean(axis=-1) + contour.mean(axis=-1)) / 2)
    row_of = dict(zip(columns.tolist(), assigned.tolist(), strict=True))
    return [
        ObjectScores(f"{name}_{annotation.id}", row_of[g], region[row_of[g], g], contour[row_of[g], g])
        for g, annotation in enumerate(objects)
    ]


def _score_frame(
    objects: Sequence[Annotation], proposals: Sequence[Prediction], frame: int, rows: int, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Return J and F of every proposal with every object, `[rows, G]`; rows beyond the proposals are empty masks.

    Dense masks are kept transposed, `[w, h]`, as pycocotools decodes them; transposition changes neither J nor F.
    """
    shape = shape[::-1]
    owner = np.zeros(shape, np.uint8)
    windows: dict[int, Window] = {}
    for rank in range(len(proposals) - 1, -1, -1):
        mask = proposals[rank].masks[frame]
        if mask is not None and mask.area:
            windows[rank], pixels = _surroundings(mask, shape)
            np.copyto(owner[windows[rank]], np.uint8(rank + 1), where=pixels)
    claimed = np.zeros(rows, np.int64)
    contours = [Contour.empty()] * rows
    for rank, window in windows.items():
        pixels = owner[window] == rank + 1
        claimed[rank] = np.count_nonzero(pixels)
        contours[rank] = Contour.of(pixels, window, shape)
    region, contour = np.zeros((2, rows, len(objects)))
    for g, annotation in enumerate(objects):
        common, area, outline = np.zeros(rows, np.int64), 0, Contour.empty()
        mask = annotation.masks[frame]
        if mask is not None:
            window, pixels = _surroundings(mask, shape)
            common, area = np.bincount(owner[window][pixels], minlength=rows + 1)[1:], mask.area
            outline = Contour.of(pixels, window, shape)
        union = claimed + area - common
        region[:, g] = np.where(union > 0, common / np.maximum(union, 1), 1.0)
        contour[:, g] = [contour_score(found, outline) for found in contours]
    return region, contour


def _surroundings(mask: Mask, shape: tuple[int, int]) -> tuple[Window, BoolArray]:
    """Return the window of a transposed frame `[w, h]` around a mask, its contour and tolerance; and the mask in it."""
    from pycocotools import mask as coco

    left, top, right, bottom = (int(edge) for edge in mask.box)
    margin = tolerance(shape) + 1
    window = (
        slice(max(left - margin, 0), min(right + margin, shape[0])),
        slice(max(top - margin, 0), min(bottom + margin, shape[1])),
    )
    dense = coco.decode({"size": [mask.height, mask.width], "counts": mask.counts})
    return window, dense.T[window].view(np.bool_)


def _object_numbers(scores: ObjectScores) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, values in (("J", scores.region), ("F", scores.contour)):
        found[name] = float(values.mean())
        found[f"{name}_recall"] = float((values > RECALL_THRESHOLD).mean())
        found[f"{name}_decay"] = _decay(values)
    return found


def _frame_numbers(scores: ObjectScores) -> dict[str, list[float]]:
    return {"J_frames": scores.region.tolist(), "F_frames": scores.contour.tolist()}


def _decay(values: FloatArray) -> float:
    """Return the mean over the first quarter of the frames minus that of the last; adjacent quarters share a frame."""
    edges = [math.floor(edge + 0.5) - 1 for edge in np.linspace(1, len(values), DECAY_BINS + 1) + 1e-10]
    return float(values[: edges[1] + 1].mean() - values[edges[-2] :].mean())
