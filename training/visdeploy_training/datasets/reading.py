"""Reading of annotation files: YouTube-VIS (2019, 2021, 2022), COCO and STEm-Seg.

All checks that open no image are made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from visdeploy.errors import ConfigError, DataError
from visdeploy.evaluation import Category, read_annotations
from visdeploy.evaluation.annotations import UNKNOWN_CATEGORY, unknown_category
from visdeploy.json_fields import Entry, read_json
from visdeploy.oddities import Oddities
from visdeploy.segmentations import read_segmentation
from visdeploy_training.datasets.categories import ClassMap, map_categories
from visdeploy_training.datasets.ignoring import hide_ignored
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord
from visdeploy_training.datasets.stemseg import read_stemseg

Layout: TypeAlias = Literal["ytvis", "coco", "stemseg"]
_UNKNOWN_IMAGE = "objects of images that the file lacks, left out"
_EMPTY = "objects without pixels, left out"


def read_records(
    annotations: str | Path,
    images: str | Path,
    *,
    layout: Layout,
    classes: Sequence[str],
    class_map: ClassMap = None,
    licenses: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    sizes: str | Path | None = None,
    strict: bool = False,
) -> list[ClipRecord]:
    """Read one annotation file.

    Args:
        annotations: JSON file.
        images: Folder that the file names in it are relative to.
        layout: `ytvis` for videos, `coco` for images, `stemseg` for both.
        classes: Class names of the training, in label order.
        class_map: See `map_categories`.
        licenses: Keep only images with these licence ids (COCO).
        only: Keep only videos with these folder names, or images with these ids (`stemseg`: sequence ids, image paths).
        sizes: Table of image sizes, see `read_stemseg`.
        strict: Refuse objects and masks without pixels, polygons of fewer than three points, and objects of images,
            videos or categories that the file lacks. Otherwise they are left out, and a warning gives their number.

    Returns:
        One record for each video or image, including those without objects, in the order of the file.

    Raises:
        DataError: The file is malformed, or an image is missing; the message names the file and the field.
        ConfigError: An option does not apply to the file.
    """
    path, folder, odd = Path(annotations), Path(images), Oddities(str(annotations), strict)
    for option, value, only_layout in (("licenses", licenses, "coco"), ("sizes", sizes, "stemseg")):
        if value is not None and layout != only_layout:
            raise ConfigError(f"the option {option} applies to the layout {only_layout} only", seen=str(path))
    if layout == "ytvis":
        records = _read_ytvis(path, folder, classes, class_map, odd)
    elif layout == "stemseg":
        records = read_stemseg(path, folder, classes, class_map, None if sizes is None else Path(sizes))
    else:
        records = _read_coco(path, folder, classes, class_map, licenses, odd)
    odd.report()
    if not records:
        raise DataError(
            f"{path} contains no usable video or image",
            seen="no video or image" + (f" with the licences {list(licenses)}" if licenses else ""),
            hint="Check the file and the option licenses.",
        )
    if only is not None:
        records = _choose(path, records, only)
    _require_images(path, folder, records)
    return records


def _choose(path: Path, records: Sequence[ClipRecord], only: Sequence[str]) -> list[ClipRecord]:
    """Return the records with the given names, in the order of the file."""
    # the record of a video is called <folder>-<id>, that of an image <id>
    by_name = {r.name.rpartition("-")[0] or r.name: r for r in records}
    unknown = [name for name in only if name not in by_name]
    if unknown:
        raise ConfigError(
            f"{path} has no video or image of this name", seen=repr(unknown[0]), expected=f"such as {list(by_name)[:5]}"
        )
    return [record for name, record in by_name.items() if name in only]


def _require_images(path: Path, folder: Path, records: Sequence[ClipRecord]) -> None:
    missing = [file for record in records for file in record.files if not file.is_file()]
    if missing:
        raise DataError(
            f"{path}: images are missing",
            seen=f"{len(missing)} missing, the first is {missing[0]}",
            expected=f"every file of the annotations under {folder}",
            hint="Check the option images, or extract the data set again.",
        )


def _read_ytvis(
    path: Path, folder: Path, classes: Sequence[str], class_map: ClassMap, odd: Oddities
) -> list[ClipRecord]:
    truth = read_annotations(path, strict=odd.strict, first_id=0)
    labels = map_categories(str(path), truth.categories, classes, class_map)
    records = []
    for video in truth.videos:
        found = [a for a in truth.annotations_by_video[video.id] if not a.crowd and a.category_id in labels]
        instances = []
        for annotation in found:
            if any(mask is not None for mask in annotation.masks):
                instances.append(InstanceRecord(labels[annotation.category_id], annotation.masks))
                continue
            where = f"{path}: annotation with id {annotation.id}"
            odd.add(_EMPTY, where, DataError(f"{where} has no mask in any frame", hint="Delete the entry."))
        files = tuple(folder / name for name in video.file_names)
        record = ClipRecord(f"{video.name}-{video.id}", video.height, video.width, files, tuple(instances))
        records.append(hide_ignored(record))
    return records


def _read_coco(
    path: Path,
    folder: Path,
    classes: Sequence[str],
    class_map: ClassMap,
    licenses: Sequence[int] | None,
    odd: Oddities,
) -> list[ClipRecord]:
    root = Entry.of(str(path), read_json(path))
    categories = [Category(e.integer("id"), e.text("name")) for e in root.entries("categories")]
    labels = map_categories(str(path), categories, classes, class_map)
    images: dict[int, Entry] = {}
    for entry in root.entries("images"):
        number = entry.integer("id")
        if number in images:
            raise entry.fail("id", seen=number, expected="unique ids", hint="Renumber the images.")
        images[number] = entry
    objects: dict[int, list[InstanceRecord]] = {number: [] for number in images}
    known = {c.id for c in categories}
    for entry in root.entries("annotations"):
        number = entry.integer("image_id")
        if number not in images:
            error = entry.fail("image_id", seen=number, expected="the id of an entry in images")
            odd.add(_UNKNOWN_IMAGE, entry.where, error)
            continue
        found = _coco_instance(entry, images[number], labels, known, odd)
        if found is not None:
            objects[number].append(found)
    odd.refuse_all(len(root.sequence("annotations")), _UNKNOWN_IMAGE, UNKNOWN_CATEGORY)
    return [
        hide_ignored(
            ClipRecord(
                str(number),
                entry.integer("height", minimum=1),
                entry.integer("width", minimum=1),
                (folder / entry.text("file_name").replace("\\", "/"),),
                tuple(objects[number]),
            )
        )
        for number, entry in images.items()
        if licenses is None or entry.integer("license") in licenses
    ]


def _coco_instance(
    entry: Entry, image: Entry, labels: Mapping[int, int], known: set[int], odd: Oddities
) -> InstanceRecord | None:
    """Return one object, or None for a crowd, a category without a label, or an object without pixels."""
    category = entry.integer("category_id")
    if category not in known:
        odd.add(UNKNOWN_CATEGORY, entry.where, unknown_category(entry, category, known))
        return None
    height, width = image.integer("height", minimum=1), image.integer("width", minimum=1)
    if entry.flag("iscrowd") or category not in labels:
        return None
    mask = read_segmentation(entry, "segmentation", entry.get("segmentation", None), height, width, odd)
    if mask is None:
        error = entry.fail("segmentation", seen="no pixel", expected="at least one", hint="Delete the entry.")
        odd.add(_EMPTY, entry.where, error)
        return None
    return InstanceRecord(labels[category], (mask,))
