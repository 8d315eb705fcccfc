"""Objects without pixels are left out, counted, and refused if strict."""

import numpy as np
import pytest

from tests.support import edit_json
from tests.visdeploy_training.material import CLASSES, HEIGHT, WIDTH, coco_set, mask_at, ytvis_set
from visdeploy.errors import DataError
from visdeploy_training.datasets import read_records

SQUARE = [6, 8, 22, 8, 22, 24, 6, 24]
EMPTY = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
# number of usable objects of the image, which has another one, and whether the entry is odd
COCO = {
    "no height": ({"segmentation": [[9.5, 18.5, 9.5, 18.5, 10.5, 18.5, 10.5, 18.5]]}, 1, True),
    "three corners on a line": ({"segmentation": [[9.98, 8.56, 15.52, 8.56, 15.52, 8.56, 11.09, 8.56]]}, 1, True),
    "outside": ({"segmentation": [[100, 60, 120, 60, 120, 70]]}, 1, True),
    "box only": ({"segmentation": []}, 1, True),
    "no segmentation": ({"segmentation": None}, 1, True),
    "empty run lengths": ({"segmentation": EMPTY}, 1, True),
    "no runs": ({"segmentation": {**EMPTY, "counts": ""}}, 1, True),
    "two points": ({"segmentation": [[1, 2, 3, 4]]}, 1, True),
    "one point": ({"segmentation": [[1, 2]]}, 1, True),
    "empty part": ({"segmentation": [[], SQUARE]}, 2, True),
    "stray part": ({"segmentation": [SQUARE, [5, 5, 6, 6]]}, 2, True),
    "stray part first": ({"segmentation": [[5, 5, 6, 6], SQUARE]}, 2, True),
    "no crowd": ({"iscrowd": False}, 2, False),
    "crowd": ({"iscrowd": True}, 1, False),
    "crowd without pixels": ({"iscrowd": 1, "segmentation": []}, 1, False),
}


@pytest.mark.parametrize(("change", "objects", "odd"), COCO.values(), ids=COCO.keys())
def test_images(tmp_path, caplog, change, objects, odd):
    path, images = coco_set(tmp_path, count=1)
    edit_json(path, lambda d: d["annotations"][0].update(change))
    options = {"layout": "coco", "classes": CLASSES}
    instances = read_records(path, images, **options)[0].instances
    assert len(instances) == objects
    if objects == 2:
        np.testing.assert_array_equal(instances[0].masks[0].decode(), mask_at(6, 8))
    assert ("annotations[0]" in caplog.text) == odd
    if odd:
        with pytest.raises(DataError, match=r"annotations\[0\].*'segmentation'"):
            read_records(path, images, **options, strict=True)
    else:
        assert len(read_records(path, images, **options, strict=True)[0].instances) == objects


@pytest.mark.parametrize("layout", ["coco", "ytvis"])
@pytest.mark.parametrize("change", [{"image_id": 99, "video_id": 99}, {"category_id": 99}], ids=["image", "category"])
def test_objects_of_something_that_the_file_lacks(tmp_path, caplog, layout, change):
    path, images = (coco_set if layout == "coco" else ytvis_set)(tmp_path)
    options = {"layout": layout, "classes": CLASSES}
    before = sum(len(record.instances) for record in read_records(path, images, **options))
    edit_json(path, lambda d: d["annotations"].append(d["annotations"][0] | {"id": 77} | change))
    assert sum(len(record.instances) for record in read_records(path, images, **options)) == before
    assert "that the file lacks, left out: 1" in caplog.text
    with pytest.raises(DataError, match=r"annotations\[\d+\].*_id'"):
        read_records(path, images, **options, strict=True)
    edit_json(path, lambda d: [entry.update(change) for entry in d["annotations"]])
    with pytest.raises(DataError, match=r"annotations\[0\].*_id'"):
        read_records(path, images, **options)


def test_images_are_reported_once(tmp_path, caplog):
    path, images = coco_set(tmp_path)
    edit_json(path, lambda d: [entry.update(segmentation=[]) for entry in d["annotations"][1:]])
    read_records(path, images, layout="coco", classes=CLASSES)
    assert len(caplog.records) == 1
    assert "objects without pixels, left out: 5 (first" in caplog.text


POLYGON = [[4, 6, 20, 6, 20, 22, 4, 22]]
YTVIS = {
    "polygon": ((0, POLYGON), 2, 5, False),
    "empty list": ((4, []), 2, 4, False),
    "empty run lengths": ((4, EMPTY), 2, 4, True),
    "no frame": ((None, None), 1, 4, True),
    "empty in all frames": ((None, EMPTY), 1, 4, True),
}


@pytest.mark.parametrize(("item", "objects", "frames", "odd"), YTVIS.values(), ids=YTVIS.keys())
def test_videos(tmp_path, caplog, item, objects, frames, odd):
    path, images = ytvis_set(tmp_path, videos=1)
    frame, value = item

    def edit(data):
        masks = data["annotations"][0]["segmentations"]
        data["annotations"][0]["segmentations"] = [value if frame in (None, t) else m for t, m in enumerate(masks)]

    edit_json(path, edit)
    options = {"layout": "ytvis", "classes": CLASSES}
    instances = read_records(path, images, **options)[0].instances
    assert len(instances) == objects
    assert sum(mask is not None for mask in instances[0].masks) == frames
    assert bool(caplog.records) == odd
    if odd:
        with pytest.raises(DataError):
            read_records(path, images, **options, strict=True)


def test_videos_may_number_objects_from_zero(tmp_path):
    path, images = ytvis_set(tmp_path)
    edit_json(path, lambda d: d["annotations"][0].update(id=0))
    assert len(read_records(path, images, layout="ytvis", classes=CLASSES, strict=True)[0].instances) == 2
