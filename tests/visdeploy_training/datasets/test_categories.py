from contextlib import nullcontext

import pytest

from visdeploy.errors import ConfigError, DataError
from visdeploy.evaluation import Category
from visdeploy_training.datasets import CLASS_LISTS, class_list, map_categories
from visdeploy_training.datasets.category_names import COCO, NAMES_BY_ID

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


COCO_CATEGORIES = [Category(i, n) for i, n in NAMES_BY_ID["COCO"].items()]
VOC_CATEGORIES = [Category(i, n) for i, n in NAMES_BY_ID["Pascal VOC"].items()]


def renamed(categories, **names):
    """Return categories with other names for some ids, given as `c7`."""
    return [Category(c.id, names.get(f"c{c.id}", c.name)) for c in categories]


@pytest.mark.parametrize(
    ("name", "categories", "classes"),
    [
        ("coco_to_ytvis2019", COCO_CATEGORIES, "ytvis2019"),
        ("coco_to_ytvis2021", COCO_CATEGORIES, "ytvis2021"),
        ("coco_to_ovis", COCO_CATEGORIES, "ovis"),
        ("stemseg_coco_to_ytvis2019", COCO_CATEGORIES, "ytvis2019"),
        ("stemseg_coco_to_object", COCO_CATEGORIES, ("object",)),
        ("stemseg_voc_to_ytvis2019", VOC_CATEGORIES, "ytvis2019"),
        ("stemseg_voc_to_ytvis2019", renamed(VOC_CATEGORIES, c1="airplane", c14="Motor-Bike", c20="tvmonitor"),
         "ytvis2019"),
        ("coco_to_ytvis2019", renamed(COCO_CATEGORIES, c1="Person", c4="motorbike", c19="horse "), "ytvis2019"),
        ("coco_to_ytvis2019", [Category(i, f"class_{i}") for i in range(1, 91)], "ytvis2019"),
        ("coco_to_ytvis2019", COCO_CATEGORIES[:3], "ytvis2019"),
        ("coco_to_ytvis2019", renamed(COCO_CATEGORIES, c90="electric toothbrush"), "ytvis2019"),  # not in the map
        ("mapillary_to_kitti_mots", [Category(20, "human--person"), Category(56, "Car"), Category(21, "Bicyclist")],
         ("car", "pedestrian")),
        ("kitti_mots", [Category(1, "car"), Category(2, "person"), Category(3, "ignore")], ("car", "pedestrian")),
        ("any_to_object", COCO_CATEGORIES, ("object",)),
    ],
)  # fmt: skip
def test_maps_by_id_fit_the_names_of_their_data_set(name, categories, classes):
    found = map_categories("f", categories, class_list(classes), name)
    assert len(found) >= 2
    assert set(found) <= {c.id for c in categories}


@pytest.mark.parametrize(
    ("name", "categories", "message"),
    [
        # ids of YouTube-VIS: 2 is a giant panda, which the map for COCO would call a motorbike
        ("coco_to_ytvis2019", [Category(i, n) for i, n in enumerate(class_list("ytvis2019"), start=1)],
         "category 2 is 'giant_panda'; expected: 'bicycle'.*remove class_map"),
        # the 80 classes of COCO with consecutive ids
        ("coco_to_ytvis2019", [Category(i, n) for i, n in enumerate(COCO, start=1)],
         "category 17 is 'dog'; expected: 'cat'.*from the names"),
        ("coco_to_ytvis2019", [Category(i, n) for i, n in enumerate(COCO)], "category 1 is 'bicycle'"),
        ("stemseg_voc_to_ytvis2019", COCO_CATEGORIES, "ids of Pascal VOC.*category 1 is 'person'.*'aeroplane'"),
        ("stemseg_coco_to_ytvis2019", VOC_CATEGORIES, "ids of COCO.*category 1 is 'aeroplane'.*'person'"),
        ("coco_to_ytvis2019", [Category(1, "my shoes")], "category 1 is 'my shoes'"),
        ("coco_to_ytvis2019", [Category(1, "class_2")], "category 1 is 'class_2'"),
    ],
)  # fmt: skip
def test_maps_by_id_are_refused_for_files_with_other_names(name, categories, message):
    with pytest.raises(DataError, match=rf"f: the class map {name} is for.*{message}"):
        map_categories("f", categories, class_list("ytvis2019"), name)


def test_an_own_map_by_id_that_contradicts_a_name():
    classes = ("car", "bird", "thing")
    assert map_categories("f", CATEGORIES, classes, {3: "car", 16: "bird", 62: "thing"}) == {3: 0, 16: 1, 62: 2}
    assert map_categories("f", CATEGORIES, classes, {3: "ignore", 16: "bird"}) == {3: -1, 16: 1}
    with pytest.raises(DataError, match=r"category 3 is 'car', mapped to 'bird'; expected: 'car'.*'car': 'bird'"):
        map_categories("f", CATEGORIES, classes, {3: "bird"})
    assert map_categories("f", CATEGORIES, classes, {"car": "bird"}) == {3: 1}


@pytest.mark.parametrize("class_map", [None, "coco_to_mini"])
def test_a_file_with_the_classes_of_the_recipe_needs_no_map(class_map):
    classes = ("person", "vehicle", "bird", "animal")
    categories = [Category(7, "animal"), Category(3, "vehicle"), Category(1, "person")]
    assert map_categories("f", categories, classes, class_map) == {7: 3, 3: 1, 1: 0}


def test_the_mouse_of_a_computer_is_no_animal():
    """A category without an entry in a map by id is dropped, even if a class has the same name."""
    found = map_categories("f", COCO_CATEGORIES, class_list("ytvis2019"), "coco_to_ytvis2019")
    assert 74 not in found


def test_published_pairs_to_ovis():
    found = map_categories("f", COCO_CATEGORIES, class_list("ovis"), "coco_to_ovis")
    assert {k: v + 1 for k, v in found.items()} == {
        1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 16: 2, 17: 3, 18: 4, 19: 5, 20: 6, 21: 7, 22: 8, 23: 9,
        24: 10, 25: 11,
    }  # fmt: skip


def test_maps_to_youtube_vis_2021_differ_by_skis():
    two = [map_categories("f", COCO_CATEGORIES, class_list("ytvis2021"), f"{name}coco_to_ytvis2021")
           for name in ("", "stemseg_")]  # fmt: skip
    assert two[0] == two[1] | {35: class_list("ytvis2021").index("snowboard")}


def test_unknown_list():
    with pytest.raises(ConfigError, match="ytvis2031"):
        class_list("ytvis2031")
