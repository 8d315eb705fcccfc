"""Quality of the tracks of a bundle on annotated videos: AP, identity switches, and switches at window borders.

    python benchmarks/tracks.py MODEL.vis shared/data/mini_vis_composite/instances.json --only dog_bear_leaves two_dogs
    python benchmarks/tracks.py MODEL.vis shared/data/mini_vis/instances.json --only bear dog

The scores are those of `visdeploy.evaluate`: AP of YouTube-VIS over all tracks; identity switches (IDSW) of CLEAR MOT
and IDF1 at a mask IoU of 0.5 over the tracks with a score of at least --min-score, because some methods report a fixed
number of tracks per clip whatever their scores. "crossed" counts the objects that are visible on both sides of a window
border. "broken" counts those of them whose track changes there: the frame before and the frame after the border are
evaluated as a video of two frames, ignoring classes. IDSW also includes switches within a window.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import visdeploy
from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.evaluation.annotations import AnnotationSet
from visdeploy.results import VideoResult
from visdeploy.streaming.windows import steps
from visdeploy.video.images import read_image

COUNTS = ("frames", "objects", "tracks", "borders", "crossed", "broken")


def select(path: Path, only: Sequence[str]) -> AnnotationSet:
    """Read the annotations of some videos, given by the names of their folders, or of all videos if none is given."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if only:
        data["videos"] = [v for v in data["videos"] if v["file_names"][0].split("/")[0] in only]
        kept = {v["id"] for v in data["videos"]}
        data["annotations"] = [a for a in data["annotations"] if a["video_id"] in kept]
    return read_annotations(data)


def predict(predictor: visdeploy.VISPredictor, name: str, files: Sequence[Path]) -> VideoResult:
    """Predict one video, with its frames pushed one by one."""
    with predictor.open_stream(collect=True, name=name) as stream:
        for file in files:
            stream.push(read_image(file))
        stream.flush()
        return stream.result()


def borders(predictor: visdeploy.VISPredictor, frames: int) -> list[int]:
    """Return the window borders: for each window but the first, the first frame whose result it determines."""
    feeder = predictor.pipeline.feeder
    windows = list(steps(feeder, [(np.zeros((1, 3, 1, 1), np.float32), None)] * frames))
    return [window.end - feeder.window.overlap // 2 for window in windows[:-1]]


def above(result: VideoResult, min_score: float) -> VideoResult:
    """Return the result without tracks that have a score below `min_score`."""
    return replace(result, tracks=[track for track in result.tracks if track.score >= min_score])


def broken(result: VideoResult, truth: AnnotationSet, start: int) -> int:
    """Count the identity switches between the frames `start - 1` and `start` of the only video of `truth`."""
    (video,), (before, after) = truth.videos, (start - 1, start)
    category = next(c.id for c in truth.categories if c.name == result.classes[0])
    tracks = []
    for track in result.tracks:
        masks = {place: track.masks[frame] for place, frame in enumerate((before, after)) if frame in track.masks}
        tracks.append(replace(track, label=0, masks=masks))
    pair = replace(result, num_frames=2, timestamps=(), expected_frames=None, tracks=tracks)
    there = [a for a in truth.annotations if a.masks[before] and a.masks[after]]
    cut = slice(before, after + 1)
    objects = (replace(a, category_id=category, masks=a.masks[cut], areas=a.areas[cut]) for a in there)
    shown = replace(truth, videos=(replace(video, file_names=video.file_names[cut]),), annotations=tuple(objects))
    clear = evaluate([pair], shown, metrics=("clear",), video_ids={video.name: video.id})["clear"]
    return int(clear["detection_average"]["IDSW"])


def figures_of(results: Sequence[VideoResult], truth: AnnotationSet, min_score: float) -> dict[str, float]:
    """Compute AP, and, for tracks with a score of at least `min_score`, identity switches, IDF1 and recall."""
    ids = {v.name: v.id for v in truth.videos}
    precision = evaluate(results, truth, metrics=("ytvis",), video_ids=ids)["ytvis"]
    strong = [above(result, min_score) for result in results]
    scores = evaluate(strong, truth, metrics=("clear", "identity"), video_ids=ids)
    clear, identity = (scores[family]["detection_average"] for family in ("clear", "identity"))
    return {
        "AP": float(precision["AP"]),
        "AP50": float(precision["AP50"]),
        "IDSW": int(clear["IDSW"]),
        "IDF1": float(identity["IDF1"]),
        "recall": float(clear["CLR_TP"] / max(1, clear["CLR_TP"] + clear["CLR_FN"])),
    }


def measure(
    predictor: visdeploy.VISPredictor, path: Path, images: Path, only: Sequence[str], *, min_score: float = 0.0
) -> dict[str, Any]:
    """Return the measurements of each video by name, and those of all videos under "all"."""
    truth, results, figures = select(path, only), [], {}
    for video in truth.videos:
        results.append(predict(predictor, video.name, [images / name for name in video.file_names]))
        starts = borders(predictor, len(video.file_names))
        alone = replace(truth, videos=(video,), annotations=truth.annotations_by_video[video.id])
        objects = [a.masks for a in alone.annotations]
        crossed = sum(bool(masks[start - 1]) and bool(masks[start]) for start in starts for masks in objects)
        shown = above(results[-1], min_score)
        counts = {"frames": len(video.file_names), "objects": len(objects), "tracks": len(shown.tracks)}
        counts |= {"borders": len(starts), "crossed": crossed}
        counts |= {"broken": sum(broken(shown, alone, start) for start in starts)}
        figures[video.name] = counts | figures_of(results[-1:], alone, min_score)
    sums = {name: sum(f[name] for f in figures.values()) for name in COUNTS}
    figures["all"] = sums | figures_of(results, truth, min_score)
    return figures


def main() -> None:
    """Predict, evaluate, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", type=Path, default=None, help="default: JPEGImages next to the annotations")
    parser.add_argument("--only", nargs="*", default=[], help="names of the folders of videos")
    parser.add_argument("--min-score", type=float, default=0.0, help="minimum score of the tracks counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="also write the measurements")
    options = parser.parse_args()
    predictor = visdeploy.VISPredictor(options.bundle, device="cpu", threads=options.threads)
    images = options.images or options.annotations.parent / "JPEGImages"
    figures = measure(predictor, options.annotations, images, options.only, min_score=options.min_score)
    table = Table(title=str(predictor), title_justify="left")
    table.add_column("video")
    for name in figures["all"]:
        table.add_column(name, justify="right")
    for video, numbers in figures.items():
        table.add_row(video, *(f"{v}" if isinstance(v, int) else f"{v:.3f}" for v in numbers.values()))
    Console(soft_wrap=True).print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
