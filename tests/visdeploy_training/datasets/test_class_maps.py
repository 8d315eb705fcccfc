"""Class maps, against the published pairs of ids and by name."""

import pytest

from visdeploy.errors import ConfigError
from visdeploy.evaluation import Category
from visdeploy_training.datasets import CLASS_MAPS, class_list, map_categories
from visdeploy_training.datasets.categories import IGNORED

COCO_PAIRS = (
    "1-1 2-21 3-6 4-21 5-28 7-17 8-29 9-34 17-14 18-8 19-18 21-15 22-32 23-20 24-30 25-22 36-33 41-5 42-27 43-40"
)
VOC_PAIRS = "1-28 4-34 7-6 8-14 10-15 12-8 13-18 14-21 15-1 19-17"
COCO_2021 = {1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9, 19: 19, 21: 7, 22: 12, 23: 2,
             24: 40, 25: 18, 34: 14, 36: 31, 41: 29, 42: 33, 43: 34}  # fmt: skip


def mapped(name, classes, last=100):
    """Return category ids of the file with those of the classes, counted from 1."""
    categories = [Category(i, f"c{i}") for i in range(1, last)]
    return {k: v if v == IGNORED else v + 1 for k, v in map_categories("f", categories, classes, name).items()}


@pytest.mark.parametrize(("name", "pairs"), [("coco", COCO_PAIRS), ("voc", VOC_PAIRS)])
def test_published_pairs_to_youtube_vis_2019(name, pairs):
    expected = dict(tuple(map(int, pair.split("-"))) for pair in pairs.split())
    assert mapped(f"stemseg_{name}_to_ytvis2019", class_list("ytvis2019")) == expected


def test_pairs_to_youtube_vis_2021_go_by_name():
    assert mapped("stemseg_coco_to_ytvis2021", class_list("ytvis2021")) == COCO_2021
    names = {
        k: class_list("ytvis2021")[v - 1]
        for k, v in mapped("stemseg_voc_to_ytvis2021", class_list("ytvis2021")).items()
    }
    assert names == {k: "car" if v == "sedan" else v for k, v in CLASS_MAPS["stemseg_voc_to_ytvis2019"].items()} | {
        3: "bird"
    }


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("stemseg_coco_to_object", [*range(1, 10), *range(16, 26), 27, *range(34, 40), 41, 42, 43]),
        ("stemseg_voc_to_object", [1, 2, 3, 4, 6, 7, 8, 10, 12, 13, 14, 15, 17, 19]),
        ("any_to_object", range(1, 100)),
    ],
)
def test_kept_classes_for_davis(name, kept):
    assert mapped(name, ["object"]) == dict.fromkeys(kept, 1)


def test_classes_for_kitti_mots():
    ignored = dict.fromkeys([21, 22, 23, 53, 55, *range(57, 64)], IGNORED)
    assert mapped("mapillary_to_kitti_mots", ["car", "pedestrian"]) == {20: 2, 56: 1} | ignored
    assert mapped("kitti_mots", ["car", "pedestrian"], 4) == {1: 1, 2: 2, 3: IGNORED}


def test_any_other_category_and_a_class_called_ignore():
    categories = [Category(1, "cat"), Category(2, "dog")]
    assert map_categories("f", categories, ["a", "b"], {"cat": "b", "*": "a"}) == {1: 1, 2: 0}
    assert map_categories("f", categories, ["ignore"], {"*": "ignore"}) == {1: 0, 2: 0}
    with pytest.raises(ConfigError, match=r"unknown class.*'object'"):
        map_categories("f", categories, ["a"], "any_to_object")
