"""Names of the categories of public data sets by id, and checks of class maps by id against the names in a file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from visdeploy.errors import DataError
from visdeploy.evaluation import Category

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
_COCO_WITHOUT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Ids up to 90 that COCO does not use."""
NAMES_BY_ID: Mapping[str, Mapping[int, str]] = {
    "COCO": dict(zip((i for i in range(1, 91) if i not in _COCO_WITHOUT), COCO, strict=True)),
    "Pascal VOC": dict(enumerate(_VOC, start=1)),
    "Mapillary Vistas": {20: "person", 56: "car"},
    "KITTI MOTS": {1: "car", 2: "pedestrian"},
}
_SOURCES = {"coco": "COCO", "voc": "Pascal VOC", "mapillary": "Mapillary Vistas", "kitti": "KITTI MOTS"}
_SYNONYMS = {
    "aeroplane": "airplane", "cellphone": "phone", "hairdryer": "hairdrier", "mobilephone": "phone",
    "motorbike": "motorcycle", "pedestrian": "person", "sofa": "couch", "television": "tv", "tvmonitor": "tv",
}  # fmt: skip


def check_public_map(
    source: str, categories: Collection[Category], class_map: Mapping[int | str, str], name: str, classes: Sequence[str]
) -> None:
    """Check that the ids in a class map of this package have the names in a file that they have in their data set.

    Args:
        source: Path of the file, for messages.
        categories: Categories of the file.
        class_map: Map from category id or name to class.
        name: Name of the map.
        classes: Class names of the training.

    Raises:
        DataError: A name disagrees.
    """
    origin = next((origin for key, origin in _SOURCES.items() if key in name.split("_")), "")
    names = NAMES_BY_ID.get(origin, {})
    for category in categories:
        if category.id not in class_map or category.id not in names or _agrees(category, names[category.id]):
            continue
        converted = all(c.name in classes for c in categories)
        raise DataError(
            f"{source}: the class map {name} is for the ids of {origin}",
            seen=f"category {category.id} is {category.name!r}",
            expected=f"{names[category.id]!r}",
            hint="The file already has the classes of the recipe; remove class_map from the data set."
            if converted
            else "Write a class_map from the names in this file.",
        )


def check_own_map(
    source: str, categories: Iterable[Category], class_map: Mapping[int | str, str], classes: Sequence[str]
) -> None:
    """Check that no id in a class map of a recipe belongs to a category that is called like another class.

    Args:
        source: Path of the file, for messages.
        categories: Categories of the file.
        class_map: Map from category id or name to class.
        classes: Class names of the training.

    Raises:
        DataError: A name disagrees.
    """
    for category in categories:
        target = class_map.get(category.id)
        called = [name for name in classes if _plain(name) == _plain(category.name)]
        if target in classes and called and target not in called:
            raise DataError(
                f"{source}: class_map maps a category by id to a class with another name",
                seen=f"category {category.id} is {category.name!r}, mapped to {target!r}",
                expected=f"{called[0]!r}",
                hint=f"Check the ids. If this is intended, map the name: {category.name!r}: {target!r}.",
            )


def _agrees(category: Category, name: str) -> bool:
    """Return whether a category has a name, or one that says nothing, such as `class 7` for id 7."""
    own = _plain(category.name.split("--")[-1])  # Mapillary Vistas: human--person
    return own == _plain(name) or re.fullmatch(rf"[a-z]*0*{category.id}", own) is not None


def _plain(name: str) -> str:
    """Return a name without spaces, hyphens and underscores, in lower case, and one of several synonyms."""
    joined = re.sub(r"[\W_]+", "", name.casefold())
    return _SYNONYMS.get(joined, joined)
