"""The annotation layout of STEm-Seg, against the same objects in the layouts of YouTube-VIS and COCO."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import edit_json
from tests.visdeploy_training.material import (
    CLASSES,
    HEIGHT,
    WIDTH,
    coco_set,
    stemseg_images,
    stemseg_videos,
    ytvis_set,
)
from visdeploy.errors import ConfigError, DataError
from visdeploy_training.datasets import ClipPart, read_records
from visdeploy_training.datasets.transforms import Chain


def read(source, **options):
    return read_records(*source, **{"layout": "stemseg", "classes": CLASSES, **options})


def decoded(instance):
    return [None if mask is None else mask.decode().tolist() for mask in instance.masks]


def assert_same_objects(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.height, one.width, one.files) == (other.height, other.width, other.files)
        assert [i.label for i in one.instances] == [i.label for i in other.instances]
        assert [decoded(i) for i in one.instances] == [decoded(i) for i in other.instances]


def test_videos_have_the_objects_of_youtube_vis(tmp_path):
    source = stemseg_videos(tmp_path)
    records = read(source)
    assert_same_objects(records, read(ytvis_set(tmp_path), layout="ytvis"))
    assert [r.name for r in records] == ["clip1-0", "clip2-1"]
    assert [r.ignore for r in records] == [None, None]
    assert read(source, only=["clip2"])[0].name == "clip2-1"


def test_images_have_the_objects_of_coco_and_ignored_pixels(tmp_path):
    records = read(stemseg_images(tmp_path))
    assert_same_objects(records, read(coco_set(tmp_path), layout="coco"))
    (mask,) = records[0].ignore
    assert (int(mask.area), mask.decode()[:, -4:].all()) == (4 * HEIGHT, True)


def test_sets_for_validation_have_no_annotations(tmp_path):
    path, images = stemseg_videos(tmp_path)
    edit_json(path, lambda d: [d["sequences"][0].pop(k) for k in ("categories", "segmentations")])
    assert [len(r.instances) for r in read((path, images))] == [0, 2]


def test_validation_folders_may_be_called_val_or_valid(tmp_path):
    path, images = stemseg_videos(tmp_path)
    (images / "clip1").rename(images / "valid")
    edit_json(path, lambda d: d.update(sequences=d["sequences"][:1]))
    edit_json(path, lambda d: d["sequences"][0].update(image_paths=[f"val/{t}.png" for t in range(5)]))
    assert read((path, images))[0].files[0] == images / "valid/0.png"


def test_an_ignored_class_becomes_ignored_pixels(tmp_path):
    record = read(stemseg_videos(tmp_path), class_map={1: "person", 2: "ignore"})[0]
    assert [i.label for i in record.instances] == [0]
    assert [None if m is None else m.area for m in record.ignore] == [256] * 4 + [None]


def test_an_ignored_class_joins_the_ignored_pixels_of_an_image(tmp_path):
    record = read(stemseg_images(tmp_path), class_map={1: "person", 2: "ignore"})[0]
    assert record.ignore[0].area == 256 + 4 * HEIGHT
    sample = ClipPart([record], Chain(), clip_length=2, sampling="consecutive").draw(0)
    assert sample.ignore.flatten(1).sum(1).tolist() == [256 + 4 * HEIGHT] * 2
    assert sample.masks.shape == (2, 1, HEIGHT, WIDTH)


def first(field, value):
    def edit(data):
        entry = data.get("sequences", data.get("images"))[0]
        if value is None:
            entry.pop(field)
        else:
            entry[field] = value

    return edit


def frame(change):
    return lambda data: change(data["sequences"][0]["segmentations"][1])


def small(data):
    """A mask of another size than the frame."""
    data["3"] = "0d0"


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (frame(lambda f: f.update({"9": f["3"]})), r"sequences\[0\].*segmentations.*\[3, 7, 9\].*\[3, 7\]"),
        (first("categories", {"3": 1, "7": 2, "8": 1}), r"\[3, 7\].*\[3, 7, 8\]"),
        (first("categories", {"3": 1, "7": 5}), r"categories.*5.*category_labels"),
        (first("categories", {"3": 1, "x": 2}), r"'x'.*whole number"),
        (first("categories", {"3": 1, "03": 2}), "3 twice"),
        (first("categories", None), "'categories'.*missing.*both"),
        (first("segmentations", None), "'segmentations'.*missing.*both"),
        (first("segmentations", []), "0 items.*5 items"),
        (first("image_paths", []), "image_paths"),
        (first("image_paths", ["gone.png"] * 5), r"images are missing.*gone\.png"),
        (first("width", WIDTH + 1), r"segmentations\[0\]"),
        (frame(small), r"segmentations\[1\]"),
        (frame(lambda f: f.update({"3": {"counts": "a"}})), r"segmentations\[1\].*a string"),
        (lambda d: d.pop("meta"), "meta"),
        (lambda d: d["meta"].update(category_labels={"1": 4}), r"category_labels.*string"),
        (lambda d: d.update(images=[]), "either sequences"),
        (lambda d: d.pop("sequences"), "either sequences"),
    ],
)
def test_malformed_videos_are_refused(tmp_path, edit, match):
    path, images = stemseg_videos(tmp_path)
    edit_json(path, edit)
    with pytest.raises(DataError, match=f"(?s){match}"):
        read((path, images))


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (first("categories", [1]), "2 items.*1 items"),
        (first("categories", [1, True]), "categories.*True"),
        (first("ignore", "!!"), r"images\[0\].*ignore"),
        (first("image_path", None), "image_path"),
        (lambda d: d.update(images=[]), "no usable"),
    ],
)
def test_malformed_images_are_refused(tmp_path, edit, match):
    path, images = stemseg_images(tmp_path)
    edit_json(path, edit)
    with pytest.raises(DataError, match=f"(?s){match}"):
        read((path, images))


def test_larger_images_shrink_to_the_sizes_of_a_table(tmp_path):
    path, images = stemseg_images(tmp_path, count=2)
    table = tmp_path / "sizes.json"
    table.write_text(json.dumps({f"{i}.png": [WIDTH, HEIGHT] for i in (1, 2)}))
    whole = np.asarray(Image.open(images / "1.png"))
    Image.fromarray(whole.repeat(2, 0).repeat(2, 1)).save(images / "1.png")
    part = ClipPart(read((path, images), sizes=table), Chain(), clip_length=1, sampling="consecutive")
    assert torch.equal(part.draw(0).images[0], torch.from_numpy(whole.copy()).permute(2, 0, 1))
    assert part.draw(1).images.shape == (1, 3, HEIGHT, WIDTH)
    with pytest.raises(DataError, match=r"another size.*option sizes"):
        ClipPart(read((path, images)), Chain(), clip_length=1, sampling="consecutive").draw(0)


@pytest.mark.parametrize(
    ("table", "match"),
    [({"1.png": [WIDTH, HEIGHT + 1]}, r"width.*\[80, 49\]"), ({}, r"'1\.png' is missing.*table of sizes"),
     ({"1.png": 3}, "list")],
)  # fmt: skip
def test_wrong_tables_of_sizes_are_refused(tmp_path, table, match):
    (tmp_path / "sizes.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=f"(?s){match}"):
        read(stemseg_images(tmp_path, count=1), sizes=tmp_path / "sizes.json")


def test_options_of_other_layouts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"licenses.*coco"):
        read(stemseg_images(tmp_path), licenses=[1])
    with pytest.raises(ConfigError, match=r"sizes.*stemseg"):
        read(coco_set(tmp_path), layout="coco", sizes=tmp_path / "sizes.json")
    with pytest.raises(ConfigError, match=r"sizes.*images only"):
        read(stemseg_videos(tmp_path), sizes=tmp_path / "sizes.json")
