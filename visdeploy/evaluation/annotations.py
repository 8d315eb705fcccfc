"""Ground truth in the YouTube-VIS layout (2019, 2021, 2022): a checking reader and immutable types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from visdeploy.arguments import check_flag, check_integer, check_names, check_path, check_type
from visdeploy.brief import Plain, brief, counted, shorten
from visdeploy.errors import DataError
from visdeploy.json_fields import MAX_SIDE, Entry, finite, is_absent, plain, read_json
from visdeploy.masks import Mask
from visdeploy.oddities import Oddities
from visdeploy.segmentations import read_segmentation

UNKNOWN_VIDEO = "objects of videos that the file lacks, left out"
UNKNOWN_CATEGORY = "objects of categories that the file lacks, left out"


@dataclass(frozen=True, slots=True)
class Category:
    """Class of a data set; ids need not be consecutive."""

    id: int
    name: str
    supercategory: str = ""

    def __repr__(self) -> str:
        return brief(self, id=self.id, name=self.name, supercategory=self.supercategory)


@dataclass(frozen=True, slots=True)
class Video:
    """Video of a data set.

    Attributes:
        id: Video id, from 0.
        height: Rows of a frame, in pixels.
        width: Columns of a frame, in pixels.
        file_names: Image of each frame, relative to the image folder, with `/` between folders.
    """

    id: int
    height: int
    width: int
    file_names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_names(check_type(self.file_names, tuple, "file_names of a video"), "file_names of a video")

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.file_names)

    @property
    def folder(self) -> PurePosixPath:
        """Folder of the frames, relative to the image folder."""
        return PurePosixPath(self.file_names[0] if self.file_names else "").parent

    @property
    def name(self) -> str:
        """Last part of `folder`; the id as text if the frames have no folder of their own."""
        return self.folder.name or str(self.id)

    def __repr__(self) -> str:
        size, count = Plain(f"{self.height}x{self.width}"), counted(self.file_names)
        return brief(self, id=self.id, name=self.name, size=size, file_names=count)


@dataclass(frozen=True, slots=True)
class Annotation:
    """Annotated object with its masks in all frames of one video.

    Attributes:
        id: Annotation id, from 1.
        video_id: Id of the video.
        category_id: Id of the class.
        masks: One item per frame; None where the object is absent.
        areas: Area in pixels, one item per frame: as stated in the file, else computed from the masks.
        crowd: Whether the entry marks a crowd region (`iscrowd`), which evaluation ignores.
    """

    id: int
    video_id: int
    category_id: int
    masks: tuple[Mask | None, ...]
    areas: tuple[float, ...]
    crowd: bool = False

    def __post_init__(self) -> None:
        for name in ("masks", "areas"):
            check_type(getattr(self, name), tuple, f"{name} of an annotation", error=DataError)

    @property
    def mean_area(self) -> float:
        """Mean area in pixels over the frames in which the object is present; 0 if it is never present."""
        present = [area for area in self.areas if area > 0]
        return sum(present) / len(present) if present else 0.0

    def __repr__(self) -> str:
        count = counted(self.masks)
        return brief(self, id=self.id, video_id=self.video_id, category_id=self.category_id, masks=count)


@dataclass(frozen=True)
class AnnotationSet:
    """Content of an annotation file.

    Attributes:
        source: Path of the file, or a description, for error messages.
        categories: Classes in ascending order of id.
        videos: Videos in the order of the file.
        annotations: Objects in the order of the file.
        ignored: Map from video id to the regions of its frames that do not count: void pixels of DAVIS, ignore regions
            of MOTS.
        metrics: Metrics of the data set, which `evaluate` computes by default.
    """

    source: str
    categories: tuple[Category, ...]
    videos: tuple[Video, ...]
    annotations: tuple[Annotation, ...]
    ignored: Mapping[int, tuple[Mask | None, ...]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("ytvis",)
    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        kinds = {"categories": Category, "videos": Video, "annotations": Annotation, "metrics": str}
        for name, kind in kinds.items():
            found = getattr(self, name)
            if not isinstance(found, tuple) or not all(isinstance(each, kind) for each in found):
                raise DataError(
                    f"{name} of a ground truth", seen=shorten(found), expected=f"a tuple of {kind.__name__}"
                )
        if not isinstance(self.ignored, Mapping):
            raise DataError("ignored regions of a ground truth", seen=shorten(self.ignored), expected="a map")

    def __repr__(self) -> str:
        counts = {name: counted(getattr(self, name)) for name in ("categories", "videos", "annotations")}
        return brief(self, source=self.source, **counts)

    @cached_property
    def category_by_id(self) -> dict[int, Category]:
        """Map from category id to category."""
        return {category.id: category for category in self.categories}

    @cached_property
    def video_by_id(self) -> dict[int, Video]:
        """Map from video id to video."""
        return {video.id: video for video in self.videos}

    @cached_property
    def annotations_by_video(self) -> dict[int, tuple[Annotation, ...]]:
        """Map from video id to its objects in the order of the file; every video has an entry."""
        found: dict[int, list[Annotation]] = {video.id: [] for video in self.videos}
        for annotation in self.annotations:
            found[annotation.video_id].append(annotation)
        return {video_id: tuple(entries) for video_id, entries in found.items()}

    def only(self, names: Sequence[str]) -> AnnotationSet:
        """Return the videos whose folder, or last part of it, is one of `names`, with their objects.

        Raises:
            DataError: There is no video of such a name.
        """
        known = {name for video in self.videos for name in (video.name, str(video.folder))}
        missing = sorted(set(names) - known)
        if missing:
            raise DataError(
                f"{self.source} lacks videos",
                seen=f"{len(missing)} of {len(names)} missing: {', '.join(missing[:5])}",
                expected=f"names of frame folders: {', '.join(v.name for v in self.videos[:5])}, ...",
            )
        videos = tuple(v for v in self.videos if {v.name, str(v.folder)} & set(names))
        kept = {video.id for video in videos}
        return replace(self, videos=videos, annotations=tuple(a for a in self.annotations if a.video_id in kept))


def read_annotations(
    source: str | Path | Mapping[str, Any],
    *,
    require_annotations: bool = True,
    strict: bool = False,
    first_id: int = 1,
) -> AnnotationSet:
    """Read YouTube-VIS ground truth.

    Masks may be compressed or uncompressed run-length encodings, or lists of polygons. Null or an empty list marks a
    frame without the object, and so does a mask without pixels; a warning gives the number of these. Objects of videos
    and categories that the file does not list are left out, with a warning.

    Args:
        source: Path of the JSON file, or its content.
        require_annotations: Whether a file without objects is an error. In the published validation and test lists
            the field `annotations` is `null` or missing.
        strict: Refuse masks without pixels, polygons of fewer than three points, and objects of videos or categories
            that the file lacks.
        first_id: Smallest id of an object. The reference evaluator never matches an object with id 0.

    Raises:
        DataError: The file cannot be read, or an entry is malformed; the message names the entry, the field and a fix.
    """
    strict = check_flag(strict, "strict")
    check_flag(require_annotations, "require_annotations")
    first_id = check_integer(first_id, "first_id")
    if isinstance(source, Mapping):
        root = Entry("ground truth", source)
    else:
        root = Entry.of(str(source), read_json(check_path(source, "ground truth")))
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
        odd = Oddities(root.where, strict)
        entries = [_annotation(entry, by_id, known, odd, first_id) for entry in root.entries("annotations")]
        odd.refuse_all(len(entries), UNKNOWN_VIDEO, UNKNOWN_CATEGORY)
        annotations = [each for each in entries if each is not None]
        odd.report()
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
                hint="Renumber the entries.",
            )
    return items


def _refuse_duplicate_names(root: Entry, categories: list[Category]) -> None:
    names = [category.name for category in categories]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DataError(
                f"{root.where}: categories[{index}] repeats a name",
                seen=repr(name),
                hint="Give each class a unique name.",
            )


def _category(entry: Entry) -> Category:
    return Category(entry.integer("id"), entry.text("name"), entry.text("supercategory", default=""))


def _video(entry: Entry) -> Video:
    names = entry.sequence("file_names")
    if not names or not all(isinstance(name, str) and name for name in names):
        raise entry.fail("file_names", seen=f"{len(names)} items", expected="one file name per frame, at least one")
    length = entry.integer("length", minimum=1, default=len(names))
    if length != len(names):
        raise entry.fail("length", seen=length, expected=f"{len(names)}, the number of file_names")
    return Video(
        id=entry.integer("id"),
        height=entry.integer("height", minimum=1, maximum=MAX_SIDE),
        width=entry.integer("width", minimum=1, maximum=MAX_SIDE),
        file_names=tuple(name.replace("\\", "/") for name in names),  # written on Windows
    )


def _annotation(
    entry: Entry, videos: Mapping[int, Video], categories: set[int], odd: Oddities, first_id: int
) -> Annotation | None:
    """Return an object, or None for one of an unknown video or class, which the reference evaluator never looks up."""
    hint = "The reference evaluator reads id 0 as 'not matched'; number from 1."
    number = entry.integer("id", minimum=first_id, hint=hint)
    video_id = entry.integer("video_id")
    if video_id not in videos:
        error = entry.fail("video_id", seen=video_id, expected="the id of an entry in videos")
        odd.add(UNKNOWN_VIDEO, entry.where, error)
        return None
    category_id = entry.integer("category_id")
    if category_id not in categories:
        odd.add(UNKNOWN_CATEGORY, entry.where, unknown_category(entry, category_id, categories))
        return None
    masks = _masks(entry, videos[video_id], odd)
    return Annotation(number, video_id, category_id, masks, _areas(entry, masks), entry.flag("iscrowd"))


def unknown_category(entry: Entry, category_id: int, known: set[int]) -> DataError:
    """Return the error about an object whose category the file does not list."""
    return entry.fail("category_id", seen=f"{category_id}, an unknown category", expected=f"one of {sorted(known)}")


def _masks(entry: Entry, video: Video, odd: Oddities) -> tuple[Mask | None, ...]:
    """Return the masks of an object, one item per frame, None where it has no pixel."""
    height, width = video.height, video.width
    hint = "Encode the mask again; write null where the object is absent."

    def read(field: str, item: Any) -> Mask | None:
        return read_segmentation(entry, field, item, height, width, odd, hint=hint)

    masks = list(entry.masks("segmentations", length=video.length, height=height, width=width, read=read))
    for frame, item in enumerate(entry.sequence("segmentations")):
        mask = masks[frame]
        if (mask is not None and mask.area) or is_absent(item):
            continue
        where, null = f"segmentations[{frame}]", "Write null where the object is absent."
        error = entry.fail(where, seen="an empty mask", expected="at least one pixel", hint=null)
        odd.add("masks without pixels, read as absent", entry.where, error)
        masks[frame] = None
    return tuple(masks)


def _areas(entry: Entry, masks: tuple[Mask | None, ...]) -> tuple[float, ...]:
    if not entry.has("areas"):
        return tuple(0.0 if mask is None else float(mask.area) for mask in masks)
    areas = []
    for frame, area in enumerate(entry.sequence("areas", length=len(masks))):
        found = 0.0 if area is None else finite(plain(area))
        if found is None or found < 0:
            raise entry.fail(f"areas[{frame}]", seen=shorten(area), expected="null or a non-negative number")
        areas.append(found)
    return tuple(areas)
