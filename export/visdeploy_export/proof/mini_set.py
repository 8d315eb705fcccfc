"""Average precision of two engines on a small annotated data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visdeploy.errors import SourceError
from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.evaluation.annotations import Video
from visdeploy.parity.certificate import AveragePrecision
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.stream import whole_video
from visdeploy.video.images import read_image


def measure_average_precision(
    reference: Pipeline, candidate: Pipeline, ground_truth: Path, images: Path
) -> AveragePrecision:
    """Evaluate both engines on all videos of a data set.

    Args:
        reference: Engine taken as correct.
        candidate: Engine under test.
        ground_truth: YouTube-VIS JSON.
        images: Folder that its image names are relative to.

    Raises:
        DataError: The annotations are malformed.
        SourceError: An image is missing or damaged.
    """
    truth = read_annotations(ground_truth)
    scores = []
    for pipeline in (reference, candidate):
        found = [whole_video(pipeline, _frames(video, images), name=video.name) for video in truth.videos]
        scores.append(float(evaluate(found, truth)["AP"]))
    return AveragePrecision(reference=scores[0], candidate=scores[1], videos=len(truth.videos))


def first_video(ground_truth: Path, images: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of the first video of a data set.

    Raises:
        DataError: The annotations are malformed.
        SourceError: An image is missing or damaged.
    """
    return _frames(read_annotations(ground_truth).videos[0], images)


def _frames(video: Video, images: Path) -> Iterator[NDArray[np.uint8]]:
    for name in video.file_names:
        try:
            yield read_image(images / name)
        except SourceError as error:
            raise SourceError(
                error.what, seen=error.seen, hint="Pass the folder of the images as `certify_on`."
            ) from error
