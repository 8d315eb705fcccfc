"""Assignment of results to the videos and categories of a ground truth, by name if there is one, else by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visdeploy.arguments import check_video_ids
from visdeploy.errors import DataError
from visdeploy.evaluation.annotations import AnnotationSet, Video
from visdeploy.json_fields import Entry
from visdeploy.results import VideoResult


def result_entries(where: str, data: Any) -> list[Entry]:
    """Return the entries of a YouTube-VIS result file.

    Args:
        where: Name of the file, for error messages.
        data: Content of the file.

    Raises:
        DataError: The content is not a list of objects.
    """
    if not isinstance(data, list):
        raise DataError(
            f"{where} is not a YouTube-VIS result file",
            seen=type(data).__name__,
            expected="a list of objects with video_id, category_id, score and segmentations",
            hint="A file with images and annotations has the format 'coco'.",
        )
    return [Entry.of(f"{where}[{index}]", item) for index, item in enumerate(data)]


class UnknownCategoryError(DataError):
    """A result has a class that the ground truth lacks."""


class Matcher:
    """Lookup of the video and the category of a `VideoResult` or of an entry of a result file.

    Args:
        truth: The ground truth.
        video_ids: Map from the name of a result to the video id; takes precedence over all other rules.
    """

    def __init__(self, truth: AnnotationSet, video_ids: Mapping[str, int] | None = None) -> None:
        self.truth, self._video_ids = truth, check_video_ids(video_ids)
        self._category_ids = {category.name: category.id for category in truth.categories}
        self._by_name: dict[str, list[Video]] = {}
        for video in truth.videos:
            for name in dict.fromkeys((video.name, str(video.folder))):
                self._by_name.setdefault(name, []).append(video)

    def video(self, where: str, name: str, stated: int | None = None) -> Video:
        """Return the video whose folder, or last part of it, is `name`; among several, the one with id `stated`."""
        candidates = self._by_name.get(name, [])
        if name in self._video_ids:
            candidates = [v for v in self.truth.videos if v.id == self._video_ids[name]]
        elif len(candidates) > 1:
            candidates = [video for video in candidates if video.id == stated]
        if len(candidates) != 1:
            raise DataError(
                f"{where} belongs to no single video of {self.truth.source}",
                seen=f"name {name!r}",
                expected=f"the name of a video's frame folder: {', '.join(v.name for v in self.truth.videos[:5])}, ...",
                hint="Pass video_ids={name: id} to select the video.",
            )
        return candidates[0]

    def category(self, where: str, name: str) -> int:
        """Return the id of the category with this name."""
        if name not in self._category_ids:
            raise UnknownCategoryError(
                f"{where}: unknown category",
                seen=repr(name),
                expected=f"one of {sorted(self._category_ids)}",
                hint="The classes of the results and of the ground truth are matched by name.",
            )
        return self._category_ids[name]

    def videos_of(self, results: Sequence[VideoResult]) -> list[Video]:
        """Return the video of each result.

        Raises:
            DataError: A result has no video, shares it with another result, or differs from it in length or size.
        """
        taken: dict[int, str] = {}
        found = []
        for result in results:
            video = self.video(f"the result {result.name!r}", result.name)
            if video.id in taken:
                raise DataError(
                    f"two results belong to video {video.id}", seen=f"{taken[video.id]!r} and {result.name!r}"
                )
            taken[video.id] = result.name
            self._check_shape(result, video)
            found.append(video)
        return found

    def _check_shape(self, result: VideoResult, video: Video) -> None:
        if (result.num_frames, result.height, result.width) != (video.length, video.height, video.width):
            raise DataError(
                f"result {result.name!r} does not match video {video.id} of {self.truth.source}",
                seen=f"{result.num_frames} frames of {result.height}x{result.width}",
                expected=f"{video.length} frames of {video.height}x{video.width}",
                hint="Run the model on exactly the frames that the ground truth lists, and keep masks at full size.",
            )

    def video_of_entry(self, entry: Entry) -> Video:
        """Return the video of an entry, by `video_name` if the entry has one, else by `video_id`."""
        video_id = entry.integer("video_id")
        if entry.has("video_name"):
            return self.video(entry.where, entry.text("video_name"), video_id)
        video = self.truth.video_by_id.get(video_id)
        if video is None:
            raise entry.fail(
                "video_id", seen=f"{video_id}, an unknown video", expected=f"a video of {self.truth.source}"
            )
        return video

    def category_of_entry(self, entry: Entry) -> int:
        """Return the category id of an entry, by `category_name` if the entry has one, else by `category_id`."""
        category_id = entry.integer("category_id")
        if entry.has("category_name"):
            return self.category(entry.where, entry.text("category_name"))
        if category_id not in self.truth.category_by_id:
            error = entry.fail(
                "category_id",
                seen=f"{category_id}, an unknown category",
                expected=f"one of {sorted(self.truth.category_by_id)}",
                hint="The result was written for another set of classes.",
            )
            raise UnknownCategoryError(error.what, seen=error.seen, expected=error.expected, hint=error.hint)
        return category_id
