"""Ground truth in the YouTube-VIS layout (2019, 2021, 2022), read once, checked in full, then typed and frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from visdeploy.errors import DataError
from visdeploy.json_fields import MAX_SIDE, Entry, read_json
from visdeploy.masks import Mask


@dataclass(frozen=True, slots=True)
class Category:
    """One class of a data set; ids need not be consecutive."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a data set.

    Attributes:
        id: Number of the video, from 0.
        height: Rows of a frame, in pixels.
        width: Columns of a frame, in pixels.
        file_names: Image of each frame, relative to the image folder.
    """

    id: int
    height: int
    width: int
    file_names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.file_names)

    @property
    def folder(self) -> PurePosixPath:
        """The folder its frames lie in, relative to the image folder."""
        return PurePosixPath(self.file_names[0]).parent

    @property
    def name(self) -> str:
        """The last part of the folder its frames lie in; the id as text where they lie in none."""
        return self.folder.name or str(self.id)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object through one video.

    Attributes:
        id: Number of the annotation, from 1.
        video_id: Video that it belongs to.
        category_id: Its class.
        masks: One item a frame; None where the object is absent.
        areas: Stated area in pixels, one item a frame; the masks' own areas where the file states none.
        crowd: Whether the entry stands for a group, which evaluation ignores.
    """

    id: int
    video_id: int
    category_id: int
    masks: tuple[Mask | None, ...]
    areas: tuple[float, ...]
    crowd: bool = False

    @property
    def mean_area(self) -> float:
        """Mean area in pixels over the frames where the object is present, 0 if there is none."""
        present = [area for area in self.areas if area > 0]
        return sum(present) / len(present) if present else 0.0


@dataclass(frozen=True)
class AnnotationSet:
    """A whole annotation file.

    Attributes:
        source: Where it came from, for messages.
        categories: Classes by rising id.
        videos: Videos in the order of the file.
        annotations: Objects in the order of the file.
    """

    source: str
    categories: tuple[Category, ...]
    videos: tuple[Video, ...]
    annotations: tuple[Annotation, ...]

    @cached_property
    def category_by_id(self) -> dict[int, Category]:
        """Category id → category."""
        return {category.id: category for category in self.categories}

    @cached_property
    def video_by_id(self) -> dict[int, Video]:
        """Video id → video."""
        return {video.id: video for video in self.videos}

    @cached_property
    def annotations_by_video(self) -> dict[int, tuple[Annotation, ...]]:
        """Video id → its objects in the order of the file; every video has an entry."""
        found: dict[int, list[Annotation]] = {video.id: [] for video in self.videos}
        for annotation in self.annotations:
            found[annotation.video_id].append(annotation)
        return {video_id: tuple(entries) for video_id, entries in found.items()}


def read_annotations(source: str | Path | Mapping[str, Any], *, require_annotations: bool = True) -> AnnotationSet:
    """Read YouTube-VIS ground truth.

    Masks may be compressed or uncompressed run-length encodings; null stands for a frame without the object.

    Args:
        source: Path of the JSON file, or its content.
        require_annotations: Whether a file without objects (the published validation and test lists, which hold
            `null` or no field there) is an error.

    Raises:
        DataError: The file cannot be read, or an entry is malformed; the message names entry, field and fix.
    """
    if isinstance(source, Mapping):
        root = Entry("ground truth", source)
    else:
        root = Entry.of(str(source), read_json(Path(source)))
    categories = _unique(root, "categories", [_category(entry) for entry in root.entries("categories")])
    _refuse_duplicate_names(root, categories)
    videos = _unique(root, "videos", [_video(entry) for entry in root.entries("videos")])
    annotations: list[Annotation] = []
    if require_annotations:
        root.get(
            "annotations",
            expected="a list of objects",
            hint="This is a list of videos without ground truth; use the file with annotations.",
        )
    if root.has("annotations"):
        by_id = {video.id: video for video in videos}
        known = {category.id for category in categories}
        annotations = [_annotation(entry, by_id, known) for entry in root.entries("annotations")]
    return AnnotationSet(
        source=root.where,
        categories=tuple(sorted(categories, key=lambda c: c.id)),
        videos=tuple(videos),
        annotations=tuple(_unique(root, "annotations", annotations)),
    )


_Item = TypeVar("_Item", Category, Video, Annotation)


def _unique(root: Entry, field: str, items: list[_Item]) -> list[_Item]:
    first: dict[int, int] = {}
    for index, item in enumerate(items):
        if first.setdefault(item.id, index) != index:
            raise DataError(
                f"{root.where}: {field}[{index}] repeats an id",
                seen=f"id {item.id}, also at {field}[{first[item.id]}]",
                expected="unique ids",
                hint="Number the entries anew.",
            )
    return items


def _refuse_duplicate_names(root: Entry, categories: list[Category]) -> None:
    names = [category.name for category in categories]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DataError(
                f"{root.where}: categories[{index}] repeats a name",
                seen=repr(name),
                hint="Give each class its own name.",
            )


def _category(entry: Entry) -> Category:
    return Category(entry.integer("id"), entry.text("name"), entry.text("supercategory", default=""))


def _video(entry: Entry) -> Video:
    names = entry.sequence("file_names")
    if not names or not all(isinstance(name, str) and name for name in names):
        raise entry.fail("file_names", seen=f"{len(names)} items", expected="one file name a frame, at least one")
    length = entry.integer("length", minimum=1, default=len(names))
    if length != len(names):
        raise entry.fail("length", seen=length, expected=f"{len(names)}, the number of file_names")
    return Video(
        id=entry.integer("id"),
        height=entry.integer("height", minimum=1, maximum=MAX_SIDE),
        width=entry.integer("width", minimum=1, maximum=MAX_SIDE),
        file_names=tuple(names),
    )


def _annotation(entry: Entry, videos: Mapping[int, Video], categories: set[int]) -> Annotation:
    number = entry.integer(
        "id", minimum=1, hint="Id 0 reads as 'not matched' in the reference evaluator; number from 1."
    )
    video_id = entry.integer("video_id")
    if video_id not in videos:
        raise entry.fail("video_id", seen=video_id, expected="the id of an entry in videos")
    category_id = entry.integer("category_id")
    if category_id not in categories:
        raise entry.fail(
            "category_id", seen=f"{category_id}, an unknown category", expected=f"one of {sorted(categories)}"
        )
    crowd = entry.integer("iscrowd", default=0)
    if crowd > 1:
        raise entry.fail("iscrowd", seen=crowd, expected="0 or 1")
    video = videos[video_id]
    masks = entry.masks("segmentations", length=video.length, height=video.height, width=video.width)
    for frame, mask in enumerate(masks):
        if mask is not None and mask.area == 0:
            raise entry.fail(
                f"segmentations[{frame}]",
                seen="an empty mask",
                expected="at least one pixel",
                hint="Write null where the object is absent.",
            )
    return Annotation(number, video_id, category_id, masks, _areas(entry, masks), bool(crowd))


def _areas(entry: Entry, masks: tuple[Mask | None, ...]) -> tuple[float, ...]:
    if not entry.has("areas"):
        return tuple(0.0 if mask is None else float(mask.area) for mask in masks)
    areas = []
    for frame, area in enumerate(entry.sequence("areas", length=len(masks))):
        if area is None:
            area = 0.0
        if not isinstance(area, int | float) or isinstance(area, bool) or not 0 <= area < math.inf:
            raise entry.fail(f"areas[{frame}]", seen=repr(area), expected="null or a number from 0 up")
        areas.append(float(area))
    return tuple(areas)
