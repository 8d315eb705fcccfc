"""Annotations and results in every format: values of any type in any place, damage, and text that is no JSON."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.damage import Rng, change_json, damage_file, deep_json, write_json
from tests.campaigns.trials import Trial
from tests.visdeploy.evaluation.builders import ground_truth, perfect
from tests.visdeploy.formats.results import walkers
from tests.visdeploy_training.material import CLASSES, coco_set, stemseg_videos, ytvis_set
from visdeploy import formats
from visdeploy.evaluation import Report, evaluate
from visdeploy.masks import Mask
from visdeploy_training.datasets import read_records

SAME = "under another name"  # fields of other tools must not matter


class Annotations:
    """Kind `annotations`: read, scored or trained from; what is accepted must be in range."""

    name, count = "annotations", 1560

    def prepare(self, folder: Path) -> None:
        self.truth = ground_truth()
        self.results = perfect(self.truth)
        self.score = evaluate(self.results, self.truth)["ytvis"]["AP"]
        self.folder = folder / "material"
        self.walkers = walkers()
        if not self.folder.exists():
            self._write()
        self.sets = {
            layout: (json.loads((self.folder / f"{layout}.json").read_text()), self.folder / images)
            for layout, images in (("ytvis", "frames"), ("coco", "images"), ("stemseg", "frames"))
        }

    def _write(self) -> None:
        self.folder.mkdir()
        ytvis_set(self.folder, videos=1)
        coco_set(self.folder)
        file, _ = stemseg_videos(self.folder, videos=1)
        if file.name != "stemseg.json":
            shutil.copy(file, self.folder / "stemseg.json")
        for name in ("r.json", "r.coco.json", "mots/r.txt", "r.parquet", "davis"):
            (self.folder / name).parent.mkdir(exist_ok=True)
            formats.save(self.walkers, self.folder / name)

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        return MAKERS[number % len(MAKERS)](self, rng, folder, number // len(MAKERS))

    def in_range(self, report: Report) -> str:
        """Return what is wrong with the scores of an evaluation."""
        numbers = {(m, name): v for m, scores in report.metrics.items() for name, v in scores.items()}
        bad = [k for k, v in numbers.items() if isinstance(v, float) and not math.isfinite(v)]
        bad += [k for k, v in numbers.items() if k[0] == "ytvis" and isinstance(v, float) and not -1 <= v <= 1]
        return f"scores out of range: {bad[:3]}" if bad else ""


def _loaded(results: list[Any]) -> str:
    """Return what is wrong with results that were read."""
    for result in results:
        result.check()
        for track in result.tracks:
            if any(mask.decode().sum() != mask.area for mask in track.masks.values()):
                return "a mask whose area is wrong"
    return ""


def _equal(label: str, expected: Any, check: Callable[[Any], str], value: Callable[[Any], Any]) -> Callable[[Any], str]:
    def right(found: Any) -> str:
        return check(found) or ("another value" if SAME in label and value(found) != expected else "")

    return right


def truth(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Ground truth of YouTube-VIS."""
    changed, label = change_json(kind.truth, rng)
    how = write_json(folder / "truth.json", changed, rng)
    right = _equal(label, kind.score, kind.in_range, lambda r: r["ytvis"]["AP"])
    return Trial(f"truth: {label}, {how}", lambda: evaluate(kind.results, folder / "truth.json"), right, (folder,))


def predictions(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Results for the evaluation, from a file or as objects."""
    changed, label = change_json(kind.results, rng)
    source: Any = changed
    if number % 2:
        write_json(source := folder / "results.json", changed, rng)
    right = _equal(label, kind.score, kind.in_range, lambda r: r["ytvis"]["AP"])
    return Trial(f"results: {label}", lambda: evaluate(source, kind.truth), right, (folder,))


def every_metric(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Results for all metrics."""
    changed, label = change_json(kind.results, rng)
    metrics = ("ytvis", "jf", "hota", "clear", "identity", "trackmap")
    return Trial(f"all metrics: {label}", lambda: evaluate(changed, kind.truth, metrics=metrics), kind.in_range)


def result_files(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Result files in JSON."""
    name = ("r.json", "r.coco.json")[number % 2]
    changed, label = change_json(json.loads((kind.folder / name).read_text()), rng)
    write_json(folder / name, changed, rng)
    right = _equal(label, [kind.walkers.tracks], _loaded, lambda found: [r.tracks for r in found])
    return Trial(f"{name}: {label}", lambda: formats.load(folder / name), right, (folder,))


def training(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Annotation files for training."""
    layout = ("ytvis", "coco", "stemseg")[number % 3]
    content, images = kind.sets[layout]
    changed, label = change_json(content, rng)
    write_json(folder / "train.json", changed, rng)

    def read() -> Any:
        return read_records(folder / "train.json", images, layout=layout, classes=CLASSES)  # type: ignore[arg-type]

    def right(records: Any) -> str:
        masks = [m for r in records for i in r.instances for m in i.masks if m is not None]
        return "masks without pixels" if any(m is not None and not m.area for m in masks) else ""

    return Trial(f"{layout}: {label}", read, right, (folder, images))


def mots(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """MOTS text with a field changed, or the file beside it."""
    shutil.copytree(kind.folder / "mots", folder / "mots")
    file = folder / "mots" / "r.txt"
    lines = [line.split(" ") for line in file.read_text().splitlines()]
    line, column = int(rng.integers(len(lines))), int(rng.integers(len(lines[0])))
    values = ("", "-1", "x", "1e9", "99999999999999999999", "nan", "10000", "0", " ", "\u0663", "2" * 50_000)
    lines[line][column] = values[int(rng.integers(len(values)))]
    file.write_text("\n".join(" ".join(line) for line in lines))
    if number % 2:
        for side in (folder / "mots").glob("*.json"):
            side.unlink()
    label = f"MOTS line {line} column {column} = {lines[line][column][:20]!r}"
    return Trial(label, lambda: formats.load(file, classes=["a", "b", "c"] if number % 2 else None), _loaded, (folder,))


def mots_truth(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """MOTS text as ground truth."""
    file = folder / "truth" / "r.txt"
    file.parent.mkdir()
    text = (kind.folder / "mots" / "r.txt").read_text()
    file.write_text(text)
    label = damage_file(file, number, rng)
    results = kind.folder / "mots"
    return Trial(f"MOTS truth: {label}", lambda: evaluate(results, folder / "truth"), kind.in_range, (folder, results))


def sidecars(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """The file beside MOTS text or DAVIS images that holds names and scores."""
    name = ("mots", "davis")[number % 2]
    shutil.copytree(kind.folder / name, folder / name)
    side = next((folder / name).rglob("*.json"))
    changed, label = change_json(json.loads(side.read_text()), rng)
    write_json(side, changed, rng)
    return Trial(f"{side.name}: {label}", lambda: formats.load(folder / name), _loaded, (folder,))


def images(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """DAVIS images, damaged."""
    shutil.copytree(kind.folder / "davis", folder / "davis")
    files = sorted((folder / "davis").rglob("*.png"))
    label = damage_file(files[int(rng.integers(len(files)))], number, rng)
    if number % 3:
        return Trial(f"DAVIS image: {label}", lambda: formats.load(folder / "davis"), _loaded, (folder,))
    results = kind.folder / "davis"
    return Trial(f"DAVIS truth: {label}", lambda: evaluate(results, folder / "davis"), kind.in_range, (folder, results))


def tables(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Parquet tables, damaged."""
    shutil.copy(kind.folder / "r.parquet", folder / "r.parquet")
    label = damage_file(folder / "r.parquet", number, rng)
    return Trial(f"Parquet: {label}", lambda: formats.load(folder / "r.parquet"), _loaded, (folder,))


def texts(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """JSON files, damaged as bytes, or nested beyond reason."""
    file = folder / ("a.json", "a.coco.json")[int(rng.integers(2))]
    if number % 3 == 0:
        file.write_text(deep_json(rng))
        label = "deep JSON"
    else:
        file.write_text(json.dumps(kind.truth if number % 3 == 1 else kind.results))
        label = damage_file(file, number // 3, rng)
    call: tuple[Callable[[], Any], Callable[[Any], str]] = (
        (lambda: formats.load(file), _loaded),
        (lambda: evaluate(kind.results, file), kind.in_range),
        (lambda: evaluate(file, kind.truth), kind.in_range),
    )[int(rng.integers(3))]
    return Trial(f"JSON text: {label}", *call, (folder,))


def runs(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """Run-length encodings of every size, damaged, endless or for other sizes."""
    changed = copy.deepcopy(kind.results)
    size = [40, 60]
    counts: Any = (
        "x" * int(rng.integers(1, 4_000_000)),
        "0" * int(rng.integers(1, 4_000_000)),
        "".join(chr(c) for c in rng.integers(33, 127, 60)),
        [int(v) for v in rng.integers(-3, 3000, int(rng.integers(1, 9)))],
        [1] * 2400,
        [0] * int(rng.integers(1, 10**5)),
        [2**62, 2**62],
        ["1"],
        b"01".decode(),
        "o" * 13 + "0",
    )[number % 10]
    if number % 7 == 0:
        size = [int(v) for v in rng.integers(-2, 2**31, 2)]
    changed[0]["segmentations"][int(rng.integers(5))] = {"size": size, "counts": counts}
    return Trial(f"runs {number % 10}", lambda: evaluate(changed, kind.truth), kind.in_range)


def spellings(kind: Annotations, rng: Rng, folder: Path, number: int) -> Trial:
    """The same ground truth and results as other tools write them, with entries of something that no list has."""
    changed, results = copy.deepcopy(kind.truth), copy.deepcopy(kind.results)
    for entry in (*changed["annotations"], *results):
        entry["segmentations"] = [_respelt(item, int(rng.integers(7))) for item in entry["segmentations"]]
    for field in ("video_id", "category_id"):
        changed["annotations"].insert(0, changed["annotations"][0] | {"id": int(rng.integers(900, 10**6)), field: 999})
    results.append(results[0] | {"category_id": 999, "score": 0.99})
    results[-1].pop("category_name", None)

    def right(report: Report) -> str:
        return kind.in_range(report) or ("" if report["ytvis"]["AP"] == kind.score else "another score")

    source = (lambda: results, lambda: iter(results), lambda: tuple(results))[int(rng.integers(3))]
    return Trial("other spellings", lambda: evaluate(source(), changed), right, good=True)


def _respelt(item: Any, way: int) -> Any:
    """Return a mask in another spelling."""
    if item is None:
        return (None, [], {}, None, [], {}, None)[way]
    mask = Mask.from_coco(item)
    flat = mask.decode().ravel(order="F")
    ends = np.flatnonzero(np.diff(flat, append=not flat[-1])) + 1
    runs = ([0] if flat[0] else []) + [int(v) for v in np.diff(ends, prepend=0)]
    counts = (item["counts"], mask.counts, bytearray(mask.counts), runs, [float(v) for v in runs], np.array(runs),
              tuple(runs))[way]  # fmt: skip
    return {"size": (item["size"], np.array(item["size"]), tuple(item["size"]))[way % 3], "counts": counts}


MAKERS = (
    spellings, truth, predictions, every_metric, result_files, training, mots, mots_truth, sidecars, images, tables,
    texts, runs, training,
)  # fmt: skip
KIND = Annotations()
