"""Time of `visdeploy.evaluate` on a synthetic set of the size of YouTube-VIS val, compared with a loop over pairs.

Run: python benchmarks/evaluation.py [--videos 300] [--predictions 20] [--repeats 3] [--metrics ytvis hota]

The loop merges masks pair by pair and frame by frame, as in the official evaluation of YouTube-VIS. Both run one after
the other in the same process, and all track IoUs are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from visdeploy.evaluation import METRICS, AnnotationSet, Prediction, evaluate, read_annotations, read_predictions
from visdeploy.evaluation.pairs import class_pairs
from visdeploy.evaluation.ytvis import YouTubeVISMetric

HEIGHT, WIDTH, FRAMES, CATEGORIES, VERTICES = 720, 1280, 27, 40, 60


def blob(generator: np.random.Generator, center: np.ndarray, radius: float) -> dict[str, Any]:
    """Create a star-shaped mask around a point, with a few hundred runs, as in real annotations."""
    angles = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    radii = radius * generator.uniform(0.85, 1.15, VERTICES)
    points = center[:, None] + radii * np.stack([np.cos(angles), np.sin(angles)])
    rle = coco.frPyObjects([np.clip(points, 0, [[WIDTH], [HEIGHT]]).T.ravel().tolist()], HEIGHT, WIDTH)[0]
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def track(generator: np.random.Generator, start: np.ndarray, speed: np.ndarray, radius: float) -> list[Any]:
    """Create the masks of a blob that moves at constant speed."""
    return [blob(generator, start + frame * speed, radius) for frame in range(FRAMES)]


def synthesize(videos: int, per_video: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Create two objects per video, and predictions near the objects, 80 % of them with the correct class."""
    generator = np.random.default_rng(seed)
    truth: dict[str, Any] = {"videos": [], "annotations": []}
    truth["categories"] = [{"id": k + 1, "name": f"class {k + 1}"} for k in range(CATEGORIES)]
    results = []
    for video in range(1, videos + 1):
        names = [f"{video:04d}/{frame:05d}.jpg" for frame in range(FRAMES)]
        truth["videos"].append({"id": video, "height": HEIGHT, "width": WIDTH, "length": FRAMES, "file_names": names})
        objects = []
        for _ in range(2):
            start, speed = generator.uniform([300, 200], [900, 500]), generator.uniform(-6, 6, 2)
            objects.append((start, speed, generator.uniform(40, 180), int(generator.integers(1, CATEGORIES + 1))))
            masks = track(generator, *objects[-1][:3])
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "video_id": video, "category_id": objects[-1][3]}
                | {"iscrowd": 0, "segmentations": masks}
            )
        for _ in range(per_video):
            start, speed, radius, category = objects[generator.integers(2)]
            shifted = start + generator.normal(0, 0.3 * radius, 2)
            label = category if generator.random() < 0.8 else int(generator.integers(1, CATEGORIES + 1))
            results.append(
                {"video_id": video, "category_id": label, "score": float(generator.random())}
                | {"segmentations": track(generator, shifted, speed, radius)}
            )
    return truth, results


def plain_loop(truth: AnnotationSet, predictions: list[Prediction]) -> dict[tuple[int, int, int], list[float]]:
    """Compute the track IoU of all pairs of the same class and video, with one merge per pair of masks."""
    found: dict[tuple[int, int, int], list[float]] = {}
    for prediction in predictions:
        for annotation in truth.annotations_by_video[prediction.video_id]:
            if annotation.category_id != prediction.category_id:
                continue
            common = union = 0.0
            for mask, other in zip(prediction.masks, annotation.masks, strict=True):
                rles = [{"size": [m.height, m.width], "counts": m.counts} for m in (mask, other) if m is not None]
                if len(rles) == 2:
                    common += coco.area(coco.merge(rles, True))
                if rles:
                    union += coco.area(coco.merge(rles, False))
            key = (annotation.video_id, annotation.category_id, annotation.id)
            found.setdefault(key, []).append(common / union if union else 0.0)
    return found


def own_overlaps(truth: AnnotationSet, predictions: list[Prediction]) -> dict[tuple[int, int, int], list[float]]:
    """Compute the track IoU of the same pairs with the evaluator."""
    return {
        (annotation.video_id, pairs.category_id, annotation.id): pairs.track_iou[:, g].tolist()
        for pairs in class_pairs(truth, predictions)
        for g, annotation in enumerate(pairs.truth)
        if pairs.predictions
    }


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Measure the median time of a call, in seconds."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Print a table of times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--predictions", type=int, default=20, help="per video")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--metrics", nargs="*", default=METRICS, choices=METRICS, help="families to time")
    options = parser.parse_args()
    truth_data, results = synthesize(options.videos, options.predictions)
    with tempfile.TemporaryDirectory() as folder:
        truth_path, result_path = Path(folder, "truth.json"), Path(folder, "results.json")
        truth_path.write_text(json.dumps(truth_data))
        result_path.write_text(json.dumps(results))
        del truth_data, results
        truth = read_annotations(truth_path)
        predictions = read_predictions(result_path, truth)
        masks = sum(mask is not None for p in predictions for mask in p.masks)
        print(f"{options.videos} videos, {len(predictions)} predictions, {masks} masks of {WIDTH}x{HEIGHT}")
        rows = {
            "parse JSON only": seconds(lambda: json.loads(result_path.read_bytes()), options.repeats),
            "read and check predictions": seconds(lambda: read_predictions(result_path, truth), options.repeats),
            "read and check ground truth": seconds(lambda: read_annotations(truth_path), options.repeats),
        }
        for name in options.metrics:
            rows[f"evaluate, {name} (with reading predictions)"] = seconds(
                lambda name=name: evaluate(result_path, truth, metrics=[name]), 1
            )
    metric = YouTubeVISMetric(truth.categories)
    loop = seconds(lambda: plain_loop(truth, predictions), options.repeats)
    own = seconds(lambda: own_overlaps(truth, predictions), options.repeats)
    score = seconds(lambda: [metric.add(pairs) for pairs in class_pairs(truth, predictions)], 1)
    rows |= {"overlaps and matching": score, "overlaps, ours": own, "overlaps, plain loop": loop}
    rows["averages"] = seconds(metric.result, options.repeats)
    for name, value in rows.items():
        print(f"{name:45s} {value:8.3f} s")
    expected, found = plain_loop(truth, predictions), own_overlaps(truth, predictions)
    worst = max(abs(a - b) for key, values in expected.items() for a, b in zip(values, found[key], strict=True))
    print(f"plain loop / ours: {loop / own:.2f}; largest difference in track IoU: {worst:.1e}")


if __name__ == "__main__":
    main()
