"""Maps from the classes of COCO, Pascal VOC, Mapillary and KITTI MOTS to those of video data sets, as in STEm-Seg.

The tables are those of STEm-Seg (Athar et al., ECCV 2020). A map to YouTube-VIS 2021 has the same pairs by class name,
and two that only its classes allow: `bird` and `flying_disc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ANY = "*"
"""Key of a class map that stands for every category without an entry of its own."""
IGNORE = "ignore"
"""Value of a class map: pixels of the category have no known label."""
OBJECT = "object"
"""Class of all objects in trainings without categories, such as those for DAVIS."""

_COCO_TO_YTVIS_2019: Mapping[int | str, str] = {
    1: "person", 2: "motorbike", 3: "sedan", 4: "motorbike", 5: "airplane", 7: "train", 8: "truck", 9: "boat",
    17: "cat", 18: "dog", 19: "horse", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    36: "snowboard", 41: "skateboard", 42: "surfboard", 43: "tennis_racket",
}  # fmt: skip
_VOC_TO_YTVIS_2019: Mapping[int | str, str] = {
    1: "airplane", 4: "boat", 7: "sedan", 8: "cat", 10: "cow", 12: "dog", 13: "horse", 14: "motorbike", 15: "person",
    19: "train",
}  # fmt: skip
_COCO_BIRD, _COCO_FRISBEE, _VOC_BIRD = 16, 34, 3
_COCO_FOR_DAVIS = (*range(1, 10), *range(16, 26), 27, *range(34, 40), *range(41, 44))
_VOC_FOR_DAVIS = (1, 2, 3, 4, 6, 7, 8, 10, 12, 13, 14, 15, 17, 19)
_MAPILLARY_IGNORED = (21, 22, 23, 53, 55, *range(57, 64))


def to_2021(pairs: Mapping[int | str, str], **more: int) -> Mapping[int | str, str]:
    """Rename the class that YouTube-VIS 2021 calls differently, and add pairs, each a class with its category id."""
    return {k: "car" if name == "sedan" else name for k, name in pairs.items()} | {k: v for v, k in more.items()}


def _all_to(name: str, categories: Iterable[int]) -> Mapping[int | str, str]:
    return dict.fromkeys(categories, name)


STEMSEG_MAPS: Mapping[str, Mapping[int | str, str]] = {
    "stemseg_coco_to_ytvis2019": _COCO_TO_YTVIS_2019,
    "stemseg_coco_to_ytvis2021": to_2021(_COCO_TO_YTVIS_2019, bird=_COCO_BIRD, flying_disc=_COCO_FRISBEE),
    "stemseg_voc_to_ytvis2019": _VOC_TO_YTVIS_2019,
    "stemseg_voc_to_ytvis2021": to_2021(_VOC_TO_YTVIS_2019, bird=_VOC_BIRD),
    "stemseg_coco_to_object": _all_to(OBJECT, _COCO_FOR_DAVIS),
    "stemseg_voc_to_object": _all_to(OBJECT, _VOC_FOR_DAVIS),
    "any_to_object": {ANY: OBJECT},
    "mapillary_to_kitti_mots": {20: "pedestrian", 56: "car", **_all_to(IGNORE, _MAPILLARY_IGNORED)},
    "kitti_mots": {1: "car", 2: "pedestrian", 3: IGNORE},
}
"""Maps by name. Keys are category ids of the annotation file."""
