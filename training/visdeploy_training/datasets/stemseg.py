"""Reading of the annotation files of STEm-Seg (Athar et al., ECCV 2020): one JSON layout for videos, one for images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from visdeploy.errors import ConfigError
from visdeploy.evaluation import Category
from visdeploy.json_fields import Entry, read_json
from visdeploy.masks import Mask
from visdeploy.masks.run_length import read_fast
from visdeploy_training.datasets.categories import ClassMap, map_categories
from visdeploy_training.datasets.ignoring import add_ignored, hide_ignored
from visdeploy_training.datasets.locations import existing
from visdeploy_training.datasets.records import ClipRecord, InstanceRecord

Labels = Mapping[int, int]


def read_stemseg(
    path: Path, folder: Path, classes: Sequence[str], class_map: ClassMap, sizes: Path | None = None
) -> list[ClipRecord]:
    """Read an annotation file in the layout of STEm-Seg.

    Videos are under `sequences`, images under `images`. Sets for validation have neither `categories` nor
    `segmentations`. A mask without pixels means that the object is absent.

    Args:
        path: JSON file.
        folder: Folder that the image paths are relative to.
        classes: Class names of the training, in label order.
        class_map: See `map_categories`.
        sizes: JSON file with a map from the name of an image file to its width and height in the annotations. The
            images may be larger; they are then scaled to that size.

    Raises:
        DataError: The file is malformed; the message names the entry and the field.
        ConfigError: `sizes` is given for videos.
    """
    root = Entry.of(str(path), read_json(path))
    table = root.entry("meta").entry("category_labels")
    categories = [Category(number, table.text(key)) for key, number in _numbers(table)]
    labels = map_categories(str(path), categories, classes, class_map)
    known = {category.id for category in categories}
    if root.has("sequences") == root.has("images"):
        raise root.fail("sequences", seen=f"fields {sorted(root.data)}", expected="either sequences (videos) or images")
    if not root.has("sequences"):
        shrunk = None if sizes is None else Entry.of(str(sizes), read_json(sizes))
        return [_image(entry, folder, labels, known, shrunk, i) for i, entry in enumerate(root.entries("images"))]
    if sizes is not None:
        raise ConfigError("the option sizes applies to images only", seen=str(path), expected="a file with images")
    return [_video(entry, folder, labels, known, i) for i, entry in enumerate(root.entries("sequences"))]


def _numbers(table: Entry) -> Iterator[tuple[str, int]]:
    """Yield the keys of a JSON object with their numbers, which must differ."""
    seen: set[int] = set()
    for key in table.data:
        try:
            number = int(key)
        except ValueError as error:
            raise table.fail(key, seen=repr(key), expected="a whole number in quotes as key") from error
        if number in seen:
            raise table.fail(key, seen=f"{number} twice", expected="unique numbers")
        seen.add(number)
        yield key, number


def _size(entry: Entry) -> tuple[int, int]:
    return entry.integer("height", minimum=1), entry.integer("width", minimum=1)


def _category(entry: Entry, value: Any, known: set[int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in known:
        raise entry.fail("categories", seen=repr(value), expected=f"ids of meta.category_labels, {sorted(known)}")
    return value


def _annotated(entry: Entry) -> bool:
    """Return whether an entry has annotations; both fields must be there or neither."""
    pair = [entry.has(field) for field in ("categories", "segmentations")]
    if pair[0] != pair[1]:
        missing = "segmentations" if pair[0] else "categories"
        raise entry.fail(missing, seen="missing", expected="both categories and segmentations, or neither")
    return pair[0]


def _read(entry: Entry, field: str, counts: Sequence[Any], height: int, width: int) -> list[Mask | None]:
    """Return masks from compressed counts, None where a mask has no pixel."""
    items = [{"size": [height, width], "counts": text} for text in counts]
    masks: list[Mask | None] = []
    for item, fast in zip(items, read_fast(items, height, width), strict=True):
        if not isinstance(item["counts"], str):
            raise entry.fail(field, seen=repr(item["counts"])[:60], expected="compressed run lengths, a string")
        mask = fast if fast is not None else entry.mask(field, item, height, width)
        masks.append(mask if mask.area else None)
    return masks


def _video(entry: Entry, folder: Path, labels: Labels, known: set[int], index: int) -> ClipRecord:
    height, width = _size(entry)
    names = entry.list_of("image_paths", str)
    if not names:
        raise entry.fail("image_paths", seen="no path", expected="at least one")
    files = tuple(existing(folder / name) for name in names)
    record = ClipRecord(f"{entry.get('id')}-{index}", height, width, files, ())
    if not _annotated(entry):
        return record
    tracks = _tracks(entry, len(files), height, width)
    table = entry.entry("categories")
    category = {number: _category(entry, table.get(key), known) for key, number in _numbers(table)}
    if set(category) != set(tracks):
        raise entry.fail(
            "segmentations",
            seen=f"instances {sorted(tracks)}",
            expected=f"those of categories, {sorted(category)}",
            hint="Every instance needs a category, and a mask in at least one frame.",
        )
    instances = (InstanceRecord(labels[c], tracks[n]) for n, c in category.items() if c in labels)
    return hide_ignored(replace(record, instances=tuple(i for i in instances if any(m is not None for m in i.masks))))


def _tracks(entry: Entry, length: int, height: int, width: int) -> dict[int, tuple[Mask | None, ...]]:
    """Return the masks of each instance in every frame."""
    frames = entry.sequence("segmentations", length=length, hint="Each frame needs one object, empty if need be.")
    tracks: dict[int, list[Mask | None]] = {}
    for t, frame in enumerate(frames):
        masks = Entry.of(f"{entry.where}: segmentations[{t}]", frame)
        numbers = list(_numbers(masks))
        found = _read(entry, f"segmentations[{t}]", [masks.get(key) for key, _ in numbers], height, width)
        for (_, number), mask in zip(numbers, found, strict=True):
            tracks.setdefault(number, [None] * length)[t] = mask
    return {number: tuple(masks) for number, masks in tracks.items()}


def _image(entry: Entry, folder: Path, labels: Labels, known: set[int], sizes: Entry | None, index: int) -> ClipRecord:
    height, width = _size(entry)
    name = entry.text("image_path")
    if sizes is not None:
        _check_size(entry, sizes, name, height, width)
    file = existing(folder / name)
    record = ClipRecord(f"{name}-{index}", height, width, (file,), (), shrink=sizes is not None)
    if entry.has("ignore"):
        record = add_ignored(record, [tuple(_read(entry, "ignore", [entry.get("ignore")], height, width))])
    if not _annotated(entry):
        return record
    categories = [_category(entry, value, known) for value in entry.sequence("categories")]
    counts = entry.sequence("segmentations", length=len(categories), hint="Each object needs a category and a mask.")
    masks = _read(entry, "segmentations", counts, height, width)
    pairs = zip(categories, masks, strict=True)
    instances = tuple(InstanceRecord(labels[c], (m,)) for c, m in pairs if c in labels and m is not None)
    return hide_ignored(replace(record, instances=instances))


def _check_size(entry: Entry, sizes: Entry, name: str, height: int, width: int) -> None:
    """Check the size of an image in the table of sizes, under its path or its file name."""
    key = name if sizes.has(name) else Path(name).name
    found = list(sizes.sequence(key, length=2, hint=f"The table of sizes needs [width, height] of {name}."))
    if found != [width, height]:
        raise entry.fail("width", seen=f"{width}x{height}", expected=f"{found}, the size in {sizes.where}")
