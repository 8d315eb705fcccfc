"""Class lists of the public data sets, and maps from the classes of one data set to those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from visdeploy.arguments import check_names
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, DataError
from visdeploy.evaluation import Category
from visdeploy_training.datasets.category_names import COCO, check_own_map, check_public_map
from visdeploy_training.datasets.class_maps import ANY, IGNORE, STEMSEG_MAPS, to_2021

ClassMap: TypeAlias = str | Mapping[int | str, str] | None
"""Class map of a data set, the name of one, or None."""
IGNORED = -1
"""Label of categories whose pixels have no known label."""

YTVIS_2019 = (
    "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey", "hand",
    "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear", "motorbike", "giraffe", "leopard",
    "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra", "tiger", "elephant", "snowboard", "boat",
    "shark", "mouse", "frog", "eagle", "earless_seal", "tennis_racket",
)  # fmt: skip
YTVIS_2021 = (
    "airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck", "earless_seal", "elephant",
    "fish", "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard", "lizard", "monkey",
    "motorbike", "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake", "snowboard", "squirrel",
    "surfboard", "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra",
)  # fmt: skip
OVIS = (
    "Person", "Bird", "Cat", "Dog", "Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra", "Giraffe", "Poultry",
    "Giant_panda", "Lizard", "Parrot", "Monkey", "Rabbit", "Tiger", "Fish", "Turtle", "Bicycle", "Motorcycle",
    "Airplane", "Boat", "Vehical",
)  # fmt: skip
CLASS_LISTS: Mapping[str, tuple[str, ...]] = {
    "ytvis2019": YTVIS_2019,
    "ytvis2021": YTVIS_2021,
    "ytvis2022": YTVIS_2021,
    "ovis": OVIS,
    "coco": COCO,
}

# COCO category id → YouTube-VIS 2019 category id, the table of the public conversion scripts
_COCO_TO_YTVIS_2019 = {
    1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18, 21: 15, 22: 32, 23: 20, 24: 30,
    25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40,
}  # fmt: skip
_COCO_TO_2019: Mapping[int | str, str] = {k: YTVIS_2019[ytvis - 1] for k, ytvis in _COCO_TO_YTVIS_2019.items()}
_COCO_TO_OVIS: Mapping[int | str, str] = {
    1: "Person", 2: "Bicycle", 3: "Vehical", 4: "Motorcycle", 5: "Airplane", 6: "Vehical", 8: "Vehical", 9: "Boat",
    16: "Bird", 17: "Cat", 18: "Dog", 19: "Horse", 20: "Sheep", 21: "Cow", 22: "Elephant", 23: "Bear", 24: "Zebra",
    25: "Giraffe",
}  # fmt: skip
_COCO_VEHICLES = ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat")
_COCO_ANIMALS = ("cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")

CLASS_MAPS: Mapping[str, Mapping[int | str, str]] = {
    "coco_to_ytvis2019": _COCO_TO_2019,
    "coco_to_ytvis2021": to_2021(_COCO_TO_2019, bird=16, flying_disc=34),
    "coco_to_ovis": _COCO_TO_OVIS,
    "coco_to_mini": {
        "person": "person",
        "bird": "bird",
        **dict.fromkeys(_COCO_VEHICLES, "vehicle"),
        **dict.fromkeys(_COCO_ANIMALS, "animal"),
    },
    **STEMSEG_MAPS,
}


def class_list(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Return the class names of a recipe, which gives a list or the name of a public one.

    Raises:
        ConfigError: The name is unknown.
    """
    if not isinstance(classes, str):
        return check_names(classes, "classes")
    if classes not in CLASS_LISTS:
        raise ConfigError(
            "unknown class list",
            seen=shorten(classes),
            expected=f"a list, or one of {sorted(CLASS_LISTS)}",
            hint="On the command line, write a comma after the name of a single class.",
        )
    return CLASS_LISTS[classes]


def map_categories(
    source: str,
    categories: Sequence[Category],
    classes: Sequence[str],
    class_map: ClassMap = None,
) -> dict[int, int]:
    """Map the categories of one annotation file to labels.

    Args:
        source: Path of the file, for messages.
        categories: Categories of the file.
        classes: Class names of the training, in label order.
        class_map: Map from a category name or id of the file to a class name, or the name of a map of this package.
            Categories without an entry are dropped; the key `*` stands for all of them. The class name `ignore` means
            that pixels of the category have no known label, unless it is one of `classes`. Without a map, every
            category of the file must be in `classes`. Keys that are ids must agree with the names in the file.

    Returns:
        Map from category id to label, which is `IGNORED` for ignored categories.

    Raises:
        ConfigError: The map is unknown, or names a class or a category that does not exist.
        DataError: Without a map, the file has a category that is not one of `classes`. Or an id in the map belongs to
            another category in the file.
    """
    label = {IGNORE: IGNORED} | {name: index for index, name in enumerate(classes)}
    if class_map is None:
        unknown = [c.name for c in categories if c.name not in classes]
        if unknown:
            raise DataError(
                f"{source}: categories that are not among the classes of the recipe",
                seen=f"{unknown[:5]}",
                expected=f"some of {list(classes)[:8]}",
                hint="Set classes to the names in the file. Or add a class_map to the data set; categories without an "
                "entry in it are dropped.",
            )
        return {c.id: label[c.name] for c in categories}
    if isinstance(class_map, str):
        if class_map not in CLASS_MAPS:
            raise ConfigError("unknown class map", seen=repr(class_map), expected=f"one of {sorted(CLASS_MAPS)}")
        wanted = CLASS_MAPS[class_map]
    else:
        wanted = class_map
    known = {ANY} | {c.id for c in categories} | {c.name for c in categories}
    for category, name in wanted.items():
        if name not in label:
            raise ConfigError(
                "class_map contains an unknown class", seen=repr(name), expected=f"one of {list(classes)}"
            )
        # the maps of this package also apply to files with only some of COCO's categories
        if category not in known and not isinstance(class_map, str):
            raise ConfigError(
                f"class_map names a category that {source} does not have",
                seen=repr(category),
                expected=f"ids or names such as {[c.name for c in categories][:8]}",
            )
    own: dict[str, str] = {}
    if not isinstance(class_map, str):
        check_own_map(source, categories, wanted, classes)
    elif any(isinstance(key, int) for key in wanted):
        check_public_map(source, categories, wanted, class_map, classes)
    else:  # by name, so that a file which already has the classes needs no map
        own = {name: name for name in classes}
    chosen = {c.id: wanted.get(c.id, wanted.get(c.name, wanted.get(ANY, own.get(c.name)))) for c in categories}
    return {number: label[name] for number, name in chosen.items() if name is not None}
