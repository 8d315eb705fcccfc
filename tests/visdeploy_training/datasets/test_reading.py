from contextlib import nullcontext

import numpy as np
import pytest

from tests.support import edit_json
from tests.visdeploy_training.material import CLASSES, HEIGHT, WIDTH, coco_set, mask_at, ytvis_set
from visdeploy.errors import ConfigError, DataError
from visdeploy_training.datasets import ImageStore, read_records, to_annotations


def read(source, layout, **options):
    return read_records(*source, layout=layout, **{"classes": CLASSES, **options})


def test_videos_keep_absent_frames_and_order(tmp_path):
    records = read(ytvis_set(tmp_path), "ytvis")
    assert [r.name for r in records] == ["clip1-1", "clip2-2"]
    assert [len(r) for r in records] == [5, 5]
    red, blue = records[0].instances
    assert (red.label, blue.label) == (0, 1)
    assert blue.masks[-1] is None
    np.testing.assert_array_equal(red.masks[2].decode(), mask_at(12, 6))


def test_images_from_polygons_and_run_lengths(tmp_path):
    record = read(coco_set(tmp_path), "coco")[0]
    assert (record.height, record.width, len(record)) == (HEIGHT, WIDTH, 1)
    np.testing.assert_array_equal(record.instances[0].masks[0].decode(), mask_at(6, 8))
    np.testing.assert_array_equal(record.instances[1].masks[0].decode(), mask_at(40, 20))


@pytest.mark.parametrize("layout", ["ytvis", "coco"])
def test_names_with_backslashes(tmp_path, layout):
    """Windows writes them; they separate folders as `/` does."""
    path, images = {"ytvis": ytvis_set, "coco": coco_set}[layout](tmp_path)
    before = read((path, images), layout)

    def change(content):
        for entry in content.get("videos", []):
            entry["file_names"] = [f".\\{name}".replace("/", "\\") for name in entry["file_names"]]
        for entry in content.get("images", []):
            entry["file_name"] = f".\\{entry['file_name']}".replace("/", "\\")

    edit_json(path, change)
    assert [r.files for r in read((path, images), layout)] == [r.files for r in before]


def test_licences_and_crowds_are_left_out(tmp_path):
    path, images = coco_set(tmp_path)
    edit_json(path, lambda d: d["annotations"][2].update(iscrowd=1))
    records = read((path, images), "coco", licenses=[2])
    assert [(r.name, len(r.instances)) for r in records] == [("2", 1)]


def test_images_without_objects_stay(tmp_path):
    path, images = coco_set(tmp_path)
    edit_json(path, lambda d: d.update(annotations=[]))
    assert [len(r.instances) for r in read((path, images), "coco")] == [0, 0, 0]


def test_records_become_ground_truth_of_the_evaluator(tmp_path):
    records = read(ytvis_set(tmp_path), "ytvis", classes=("vehicle",), class_map={"vehicle": "vehicle"})
    truth = to_annotations(records, ("vehicle",))
    assert [v.name for v in truth.videos] == ["clip1-1", "clip2-2"]
    assert [(a.video_id, a.category_id, a.areas) for a in truth.annotations] == [
        (i, 1, (256.0, 256.0, 256.0, 256.0, 0.0)) for i in (1, 2)
    ]


def _set(*path_and_value):
    *path, key, value = path_and_value

    def edit(data):
        for step in path:
            data = data[step]
        data[key] = value

    return edit


@pytest.mark.parametrize(
    ("layout", "edit", "expected"),
    [
        ("coco", lambda d: None, nullcontext()),
        ("coco", _set("annotations", 0, "segmentation", [1, 2]), pytest.raises(DataError, match="polygons")),
        ("coco", _set("annotations", 0, "segmentation", [["1", 2]]), pytest.raises(DataError, match="polygons")),
        ("coco", _set("annotations", 0, "iscrowd", 7), pytest.raises(DataError, match="0 or 1")),
        ("coco", _set("annotations", 1, "segmentation", "counts", "!!"),
         pytest.raises(DataError, match=r"annotations\[1\]")),
        ("coco", _set("annotations", 1, "segmentation", "size", [9, 9]),
         pytest.raises(DataError, match="segmentation")),
        ("coco", _set("images", 1, "id", 1), pytest.raises(DataError, match="unique")),
        ("coco", _set("images", 1, "file_name", "gone.png"), pytest.raises(DataError, match=r"missing.*gone\.png")),
        ("coco", _set("categories", 0, "name", "unicorn"), pytest.raises(DataError, match=r"unicorn.*class_map")),
        ("coco", _set("images", []), pytest.raises(DataError, match="image_id")),
        ("ytvis", _set("annotations", 0, "segmentations", []), pytest.raises(DataError, match="segmentations")),
        ("ytvis", _set("annotations", 0, "segmentations", 0, {"size": [HEIGHT, WIDTH], "counts": "a~"}),
         pytest.raises(DataError, match="segmentations")),
        ("ytvis", _set("videos", 0, "length", 4), pytest.raises(DataError, match="length")),
        ("ytvis", _set("videos", 0, "file_names", 0, "clip1/gone.png"), pytest.raises(DataError, match=r"gone\.png")),
    ],
)  # fmt: skip
def test_malformed_annotations_are_refused_at_once(tmp_path, layout, edit, expected):
    path, images = (coco_set if layout == "coco" else ytvis_set)(tmp_path)
    edit_json(path, edit)
    with expected:
        read((path, images), layout)


def test_licences_belong_to_images(tmp_path):
    with pytest.raises(ConfigError, match="coco"):
        read(ytvis_set(tmp_path), "ytvis", licenses=[1])
    with pytest.raises(DataError, match="licences"):
        read(coco_set(tmp_path), "coco", licenses=[77])


@pytest.mark.parametrize(
    ("content", "size", "expected"),
    [
        (None, (HEIGHT, WIDTH), pytest.raises(DataError, match="cannot read the image")),
        (b"", (HEIGHT, WIDTH), pytest.raises(DataError, match="cannot read the image")),
        (b"\x89PNG not really", (HEIGHT, WIDTH), pytest.raises(DataError, match="cannot read the image")),
        ("good", (HEIGHT, WIDTH + 1), pytest.raises(DataError, match="another size")),
        ("good", (HEIGHT, WIDTH), nullcontext()),
    ],
)
def test_bad_images_name_the_file(tmp_path, content, size, expected):
    path = coco_set(tmp_path)[1] / "1.png"
    if content is None:
        path.unlink()
    elif content != "good":
        path.write_bytes(content)
    with expected:
        assert ImageStore(keep=True)(path, *size).shape == (3, *size)


@pytest.mark.parametrize(
    ("file", "layout", "videos", "objects"),
    [("mini_vis/instances_train.json", "ytvis", 15, 15), ("penn_fudan/instances_val.json", "coco", 34, 86)],
)
def test_real_sets(shared, file, layout, videos, objects):
    folder = shared / "data" / file.split("/")[0]
    images = folder / ("JPEGImages" if layout == "ytvis" else "images")
    classes = ("person", "vehicle", "bird", "animal")
    records = read_records(shared / "data" / file, images, layout=layout, classes=classes)
    assert (len(records), sum(len(r.instances) for r in records)) == (videos, objects)
