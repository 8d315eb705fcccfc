"""Average precision of two engines on a small annotated set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visdeploy.backends import Backend
from visdeploy.bundle import Bundle
from visdeploy.errors import SourceError
from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.evaluation.annotations import AnnotationSet, Video
from visdeploy.parity.certificate import AveragePrecision
from visdeploy.predictor import VISPredictor
from visdeploy.results import VideoResult


def measure_average_precision(
    bundle: Bundle, reference: Backend, candidate: Backend, ground_truth: Path, images: Path
) -> AveragePrecision:
    """Run both engines over every video of a set and score both.

    Args:
        bundle: The bundle under test.
        reference: The engine taken as right.
        candidate: The engine under test.
        ground_truth: YouTube-VIS JSON.
        images: Folder that its image names are relative to.

    Raises:
        DataError: The annotations are malformed.
        SourceError: An image is missing or damaged.
    """
    truth = read_annotations(ground_truth)
    scores = [
        float(evaluate(_results(bundle, backend, truth, images), truth)["AP"]) for backend in (reference, candidate)
    ]
    return AveragePrecision(reference=scores[0], candidate=scores[1], videos=len(truth.videos))


def first_video(ground_truth: Path, images: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames of the first video of a set.

    Raises:
        DataError: The annotations are malformed.
        SourceError: An image is missing or damaged.
    """
    return _frames(read_annotations(ground_truth).videos[0], images)


def _results(bundle: Bundle, backend: Backend, truth: AnnotationSet, images: Path) -> list[VideoResult]:
    predictor = VISPredictor(bundle, device="cpu", threads=1)
    predictor.backend = backend
    results = []
    for video in truth.videos:
        with predictor.open_stream(collect=True, name=video.name) as stream:
            for frame in _frames(video, images):
                stream.push(frame)
            stream.flush()
            results.append(stream.result())
    return results


def _frames(video: Video, images: Path) -> Iterator[NDArray[np.uint8]]:
    from PIL import Image

    for name in video.file_names:
        try:
            with Image.open(images / name) as image:
                yield np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise SourceError(
                f"image {images / name} cannot be read",
                seen=str(error),
                hint="Pass the folder of the images as `certify_on`.",
            ) from error
