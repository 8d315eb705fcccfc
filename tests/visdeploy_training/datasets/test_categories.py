from contextlib import nullcontext

import pytest

from visdeploy.errors import ConfigError, DataError
from visdeploy.evaluation import Category
from visdeploy_training.datasets import CLASS_LISTS, class_list, map_categories
from visdeploy_training.datasets.categories import COCO

CATEGORIES = (Category(3, "car"), Category(16, "bird"), Category(62, "chair"))


@pytest.mark.parametrize(("name", "count"), [("ytvis2019", 40), ("ytvis2021", 40), ("ovis", 25), ("coco", 80)])
def test_public_lists_have_their_sizes(name, count):
    assert len(set(class_list(name))) == len(class_list(name)) == count


def test_spot_checks_of_the_published_table():
    """COCO id 17 is a cat, and 7 a train; both have a YouTube-VIS 2019 class, a bench (15) has none."""
    found = map_categories(
        "f",
        [Category(17, "cat"), Category(7, "train"), Category(15, "bench")],
        class_list("ytvis2019"),
        "coco_to_ytvis2019",
    )
    assert {k: CLASS_LISTS["ytvis2019"][v] for k, v in found.items()} == {17: "cat", 7: "train"}


def test_mini_map_leaves_only_its_four_classes():
    names = class_list("coco")
    assert names is COCO
    categories = [Category(i + 1, n) for i, n in enumerate(names)]
    found = map_categories("f", categories, ("person", "vehicle", "bird", "animal"), "coco_to_mini")
    assert sorted(set(found.values())) == [0, 1, 2, 3]
    assert len(found) == 1 + 8 + 1 + 9


@pytest.mark.parametrize(
    ("classes", "class_map", "expected"),
    [
        (("car", "bird", "chair"), None, nullcontext({3: 0, 16: 1, 62: 2})),
        (("animal", "thing"), {"bird": "animal", 62: "thing"}, nullcontext({16: 0, 62: 1})),
        (("car",), None, pytest.raises(DataError, match=r"bird.*class_map")),
        (("car",), {"bird": "plane"}, pytest.raises(ConfigError, match="plane")),
        (("car",), {"boat": "car"}, pytest.raises(ConfigError, match="boat")),
        (("car",), "no_such_map", pytest.raises(ConfigError, match="no_such_map")),
    ],
)
def test_mapping(classes, class_map, expected):
    with expected as result:
        assert map_categories("f", CATEGORIES, classes, class_map) == result


def test_unknown_list():
    with pytest.raises(ConfigError, match="ytvis2031"):
        class_list("ytvis2031")
