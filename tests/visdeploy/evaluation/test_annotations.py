import copy
import json

import numpy as np
import pytest

from tests.visdeploy.evaluation.builders import FRAMES, HEIGHT, WIDTH, box_rle, ground_truth
from visdeploy.errors import DataError
from visdeploy.evaluation import read_annotations
from visdeploy.masks import Mask


def test_reads_what_is_there():
    truth = read_annotations(ground_truth())
    assert [c.name for c in truth.categories] == ["cat", "dog"]
    assert [(v.name, v.length, v.height, v.width) for v in truth.videos] == [
        ("clip1", FRAMES, HEIGHT, WIDTH),
        ("clip2", FRAMES, HEIGHT, WIDTH),
    ]
    assert [a.id for a in truth.annotations_by_video[1]] == [1, 2]
    last = truth.annotations[2]
    assert last.masks[2] is None
    assert last.areas == (108.0, 108.0, 0.0, 108.0, 108.0)
    assert last.mean_area == 108.0
    assert last.masks[0] == Mask.from_coco(box_rle(5, 20, 9, 12))


def test_uncompressed_counts_read_the_same(tmp_path):
    data = ground_truth()
    runs = [5 * HEIGHT + 20] + [12, HEIGHT - 12] * 8 + [12]
    data["annotations"][2]["segmentations"][0]["counts"] = [*runs, HEIGHT * WIDTH - sum(runs)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    assert read_annotations(path).annotations == read_annotations(ground_truth()).annotations


def test_stated_areas_and_crowds_are_kept():
    data = ground_truth()
    data["annotations"][0] |= {"areas": [1, 2.5, None, 0, 4], "iscrowd": 1}
    entry = read_annotations(data).annotations[0]
    assert entry.crowd
    assert entry.mean_area == pytest.approx(7.5 / 3)


@pytest.mark.parametrize("annotations", [None, "absent"])
def test_a_list_of_videos_without_ground_truth(annotations):
    data = ground_truth() | {"annotations": None}
    if annotations:
        del data["annotations"]
    assert read_annotations(data, require_annotations=False).annotations == ()
    with pytest.raises(DataError, match="annotations"):
        read_annotations(data)


def edit(path: str, value):
    """Return a change of one value of the ground truth; `del` removes it."""

    def apply(data: dict) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        for step in way:
            data = data[step]
        if value is DELETE:
            del data[last]
        else:
            data[last] = value

    return apply


DELETE = object()
FIRST = "annotations/0"
BAD = {
    "no videos": (edit("videos", DELETE), "'videos' is missing"),
    "videos are no list": (edit("videos", {}), "'videos'.*list"),
    "entry is no object": (edit("annotations/1", 3), r"annotations\[1\].*JSON object"),
    "video without size": (edit("videos/0/height", DELETE), r"videos\[0\].*'height' is missing"),
    "size is text": (edit("videos/0/width", "60"), r"videos\[0\].*'width'"),
    "no file names": (edit("videos/1/file_names", []), r"videos\[1\].*'file_names'"),
    "length disagrees": (edit("videos/1/length", 6), r"videos\[1\].*'length'.*seen: 6.*5"),
    "video twice": (edit("videos/1/id", 1), r"videos\[1\] repeats an id.*id 1"),
    "category twice": (edit("categories/1/id", 1), r"categories\[1\] repeats an id"),
    "name twice": (edit("categories/1/name", "cat"), r"categories\[1\] repeats a name"),
    "annotation id 0": (edit(f"{FIRST}/id", 0), r"annotations\[0\].*'id'.*number from 1"),
    "annotation twice": (edit(f"{FIRST}/id", 3), r"annotations\[2\] repeats an id.*annotations\[0\]"),
    "id is true": (edit(f"{FIRST}/id", True), "'id'"),
    "no annotation id": (edit(f"{FIRST}/id", DELETE), "'id' is missing"),
    "crowd 2": (edit(f"{FIRST}/iscrowd", 2), "'iscrowd'.*0 or 1"),
    "one mask short": (edit(f"{FIRST}/segmentations/4", DELETE), "'segmentations'.*4 items.*5 items.*null"),
    "mask is a number": (edit(f"{FIRST}/segmentations/1", 5), r"segmentations\[1\].*polygons"),
    "dense mask": (
        edit(f"{FIRST}/segmentations/1", np.zeros((HEIGHT, WIDTH))),
        r"segmentations\[1\].*an array of 40x60",
    ),
    "flat polygon": (edit(f"{FIRST}/segmentations/1", [1, 2, 3, 4, 5, 6]), r"segmentations\[1\].*polygons"),
    "text in a polygon": (edit(f"{FIRST}/segmentations/1", [[1, 2, 3, 4, 5, "6"]]), r"segmentations\[1\].*polygons"),
    "nan in a polygon": (edit(f"{FIRST}/segmentations/1", [[1, 2, 3, 4, 5, float("nan")]]), r"segmentations\[1\]"),
    "corner far away": (edit(f"{FIRST}/segmentations/1", [[1, 2, 3, 4, 5, 1e12]]), r"segmentations\[1\].*polygons"),
    "mask without counts": (edit(f"{FIRST}/segmentations/1/counts", DELETE), r"segmentations\[1\].*malformed"),
    "runs too short": (edit(f"{FIRST}/segmentations/1/counts", [5, 6]), r"segmentations\[1\]"),
    "negative run": (edit(f"{FIRST}/segmentations/1/counts", [2500, -100]), r"segmentations\[1\]"),
    "run is text": (edit(f"{FIRST}/segmentations/1/counts", ["2400"]), r"segmentations\[1\]"),
    "ragged counts": (edit(f"{FIRST}/segmentations/1/counts", [[1], 2399]), r"segmentations\[1\]"),
    "huge run": (edit(f"{FIRST}/segmentations/1/counts", [2**70]), r"segmentations\[1\]"),
    "garbage text": (edit(f"{FIRST}/segmentations/1/counts", "~~\x01é"), r"segmentations\[1\]"),
    "text cut in a number": (edit(f"{FIRST}/segmentations/1/counts", "PPPP"), r"segmentations\[1\]"),
    "other size": (
        edit(f"{FIRST}/segmentations/1", box_rle(0, 0, 2, 2, height=30)),
        r"segmentations\[1\].*30x60.*40x60",
    ),
    "areas short": (edit(f"{FIRST}/areas", [1, 2]), "'areas'.*2 items"),
    "negative area": (edit(f"{FIRST}/areas", [1, 2, -3, 4, 5]), r"areas\[2\]"),
    "area is nan": (edit(f"{FIRST}/areas", [1, 2, float("nan"), 4, 5]), r"areas\[2\]"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_ground_truth(change, message):
    data = copy.deepcopy(ground_truth())
    change(data)
    with pytest.raises(DataError, match=message):
        read_annotations(data)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100_000])
def test_bad_files_are_named(tmp_path, content):
    path = tmp_path / "truth.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"truth\.json"):
        read_annotations(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"cannot read.*nowhere"):
        read_annotations(tmp_path / "nowhere.json")
