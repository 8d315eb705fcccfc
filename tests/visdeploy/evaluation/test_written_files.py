"""A saved YouTube-VIS file scores as the results it was made of, whatever the ids of the data set are."""

import json
from pathlib import Path

import pytest

from tests.visdeploy.evaluation.builders import ground_truth
from visdeploy import formats
from visdeploy.evaluation import METRICS, AnnotationSet, evaluate, read_annotations
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult


def detections(truth: AnnotationSet, classes: tuple[str, ...]) -> list[VideoResult]:
    """Return results of an imperfect model: shifted masks, every third class wrong, one false track per video."""
    results = []
    for position, video in enumerate(truth.videos):
        tracks = []
        for number, annotation in enumerate(truth.annotations_by_video[video.id]):
            lag = (position + number) % 4
            masks = {t: annotation.masks[max(0, t - lag)] for t in range(video.length)}
            found = {t: mask for t, mask in masks.items() if mask is not None}
            label = classes.index(truth.category_by_id[annotation.category_id].name)
            label = (label + ((position + number) % 3 == 2)) % len(classes)
            tracks.append(Track(number, label, 0.9 - 0.07 * position - 0.2 * number, found))
        whole = Mask.encode(tracks[0].masks[min(tracks[0].masks)].decode() * 0 + 1)
        tracks.append(Track(len(tracks), position % len(classes), 0.85, dict.fromkeys(range(video.length), whole)))
        results.append(VideoResult(video.name, video.height, video.width, video.length, classes, tracks))
    return results


def check(results: list[VideoResult], source: Path, folder: Path, metrics: tuple[str, ...]) -> None:
    """Compare scores of one file, with and without the ids of the ground truth, and of one file per video."""
    expected = evaluate(results, source, metrics=metrics)
    assert 0.05 < expected["AP"] < 0.95
    formats.save(results, folder / "one.json")
    formats.save(results, folder / "ids.json", ground_truth=source)
    (folder / "each").mkdir()
    for result in results:
        result.save(folder / "each" / f"{result.name}.json")
    own, known = (
        {(e["video_name"], e["video_id"], e["category_name"], e["category_id"]) for e in json.loads(path.read_text())}
        for path in (folder / "one.json", folder / "ids.json")
    )
    assert not own & known  # otherwise the names decide nothing
    assert evaluate(folder / "one.json", source, metrics=metrics) == expected
    assert evaluate(folder / "ids.json", source, metrics=metrics) == expected
    in_turn = sorted(results, key=lambda result: f"{result.name}.json")
    assert evaluate(folder / "each", source, metrics=metrics) == evaluate(in_turn, source, metrics=metrics)
    assert evaluate(formats.load(folder / "one.json"), source, metrics=metrics) == expected


def test_made_up_set(tmp_path: Path) -> None:
    """Category ids 1 and 7, videos 1 and 2 in the other order."""
    source = tmp_path / "truth.json"
    source.write_text(json.dumps(ground_truth()))
    check(detections(read_annotations(source), ("dog", "cat"))[::-1], source, tmp_path, METRICS)


def test_real_set(shared: Path, tmp_path: Path) -> None:
    """Video ids from 16; the model's classes in reverse order."""
    source = shared / "data/mini_vis/instances_val.json"
    truth = read_annotations(source)
    classes = tuple(category.name for category in reversed(truth.categories))
    check(detections(truth, classes), source, tmp_path, ("ytvis", "hota"))


@pytest.mark.parametrize("classes", [(), ("cat", "dog")])
def test_names_are_written_where_there_are_any(tmp_path: Path, classes: tuple[str, ...]) -> None:
    VideoResult("clip1", 4, 5, 1, classes, [Track(0, 1, 0.5)]).save(tmp_path / "r.json")
    (entry,) = json.loads((tmp_path / "r.json").read_text())
    assert (entry["category_id"], entry.get("category_name")) == (2, "dog" if classes else None)
