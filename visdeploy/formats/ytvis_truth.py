"""The parts of a YouTube-VIS annotation file that results refer to: videos and categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from visdeploy.errors import DataError
from visdeploy.formats.common import MAX_SIDE, Entry, read_json
from visdeploy.results import VideoResult


@dataclass(frozen=True, slots=True)
class TruthVideo:
    """One video of a ground truth: id, folder name, size in pixels, frames."""

    id: int
    name: str
    height: int
    width: int
    length: int


class GroundTruth:
    """Videos and categories of an annotation file.

    Attributes:
        videos: In the order of the file.
        class_names: Category names by rising id.
        labels: Category id → index into `class_names`.
    """

    def __init__(self, content: Any, path: Path) -> None:
        top = Entry(content, path, "top level")
        self._path = path
        self.videos = [self._video(entry) for entry in top.entries("videos")]
        categories = sorted((e.integer("id"), e.text("name")) for e in top.entries("categories"))
        self.class_names = tuple(name for _, name in categories)
        self.labels = {number: i for i, (number, _) in enumerate(categories)}
        self._category_ids = {name: number for number, name in categories}

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> GroundTruth:
        """From a file, or from its parsed content."""
        if isinstance(source, Mapping):
            return cls(source, Path("ground truth"))
        return cls(read_json(Path(source)), Path(source))

    @staticmethod
    def _video(entry: Entry) -> TruthVideo:
        number = entry.integer("id")
        files = entry.list_of("file_names", str)
        name = str(PurePosixPath(files[0]).parent) if files else ""
        return TruthVideo(
            number,
            name if name not in ("", ".") else entry.text("name", str(number)),
            entry.integer("height", least=1, most=MAX_SIDE),
            entry.integer("width", least=1, most=MAX_SIDE),
            entry.integer("length", len(files)),
        )

    def by_id(self, number: int) -> TruthVideo:
        """The video with an id."""
        return next(v for v in self.videos if v.id == number)

    def video_id(self, result: VideoResult) -> int:
        """Id of a result's video: the one with its name (or the last part of it), of the same length and size."""
        found = [v for v in self.videos if result.name in (v.name, PurePosixPath(v.name).name)]
        if len(found) != 1:
            raise DataError(
                f"video {result.name!r} is {'not in' if not found else 'several times in'} {self._path}",
                expected=f"one of {', '.join(v.name for v in self.videos[:5])}, ...",
                hint="Pass video_ids={name: id}, or give the result the name of the video's folder.",
            )
        video = found[0]
        if (video.length, video.height, video.width) != (result.num_frames, result.height, result.width):
            raise DataError(
                f"video {result.name!r} does not match {self._path}",
                seen=f"{result.num_frames} frames of {result.height}x{result.width}",
                expected=f"{video.length} frames of {video.height}x{video.width}",
                hint="Masks are given frame by frame at full size: run on the very frames the annotation lists.",
            )
        return video.id

    def category_id(self, name: str) -> int:
        """Id of a class by its name."""
        if name not in self._category_ids:
            raise DataError(f"class {name!r} is not in {self._path}", expected=", ".join(self._category_ids))
        return self._category_ids[name]
