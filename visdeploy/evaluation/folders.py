"""Ground truth of DAVIS and MOTS: folders of indexed PNGs and of text files, and results in any format beside them.

DAVIS: one folder per video with one PNG per annotated frame; a pixel has the number of its object, 0 for the
background, 255 for void. Classes do not count. MOTS (KITTI MOTS, MOTSChallenge): one text file per video, with the
class of each object; class 10 marks regions in which results are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from visdeploy.errors import DataError
from visdeploy.evaluation.annotations import Annotation, AnnotationSet, Category, Video
from visdeploy.evaluation.predictions import PredictionSource
from visdeploy.formats import detect_format, load
from visdeploy.formats.davis import VOID, frame_files, video_folders
from visdeploy.masks.combining import union
from visdeploy.results import Track, VideoResult

logger = logging.getLogger(__name__)

MOTS_CLASSES = ("car", "pedestrian")
"""Names of the classes of KITTI MOTS, from class 1 on."""
_IGNORE, _IGNORE_CLASS = "ignore", 10
_OBJECT = Category(1, "object")


def is_folder_truth(source: object) -> bool:
    """Return whether a ground truth is a folder, or a MOTS text file."""
    return isinstance(source, str | Path) and (Path(source).is_dir() or Path(source).suffix == ".txt")


def read_folders(
    ground_truth: str | Path,
    predictions: PredictionSource,
    *,
    classes: Sequence[str] = MOTS_CLASSES,
    numbering: str | None = None,
    videos: Sequence[str] | None = None,
) -> tuple[AnnotationSet, list[VideoResult]]:
    """Read ground truth of DAVIS or MOTS, and results to be compared with it.

    A MOTS text file does not state the number of frames of its video. The longer one of ground truth and result counts.

    Args:
        ground_truth: Folder of video folders with PNGs, folder of text files, or one text file.
        predictions: `VideoResult`s, or the path of a file or folder in any format of `visdeploy.formats`.
        classes: Names of the classes of MOTS from 1 on, for ground truth that does not state them in a
            `NAME.tracks.json`. Results are matched by name; those of other tools, which have no names, by number.
        numbering: Numbers of frames in MOTS text that does not state them, see `visdeploy.formats.mots`.
        videos: Names of the videos to read; by default all.

    Raises:
        DataError: A file cannot be read or is malformed, or there is no video of such a name.
    """
    path = Path(ground_truth)
    if not path.exists():
        raise DataError(f"{path} does not exist", hint="Check the path.")
    if detect_format(path) == "mots":
        truth, classes = _read_mots(path, classes, numbering, videos)
        results = _named(_results(predictions, classes, truth, numbering), videos)
        lengths = {r.name: r.num_frames for r in results}
        truth = [replace(v, num_frames=max(v.num_frames, lengths.get(v.name, 0))) for v in truth]
        lengths = {v.name: v.num_frames for v in truth}
        results = [replace(r, num_frames=lengths.get(r.name, r.num_frames)) for r in results]
        return _mots(str(path), truth, classes), results
    folders = find_videos(path, videos, suffix="")
    truth = [video for folder in folders for video in load(folder, format="davis", keep_void=True)]
    annotated = {each.name: tuple(frame_files(each)) for folder in folders for each in video_folders(folder)}
    results = [_one_class(each) for each in _named(_results(predictions, None, truth), videos)]
    results = [_annotated_only(each, annotated.get(each.name, ())) for each in results]
    return _davis(str(path), [_annotated_only(each, annotated[each.name]) for each in truth]), results


def find_videos(path: Path, videos: Sequence[str] | None, *, suffix: str) -> list[Path]:
    """Return the folders or files of the named videos, or the whole folder.

    Args:
        path: Folder of a ground truth.
        videos: Names of the videos; None for all.
        suffix: `.txt` for MOTS, empty for DAVIS.

    Raises:
        DataError: It lacks some of the videos.
    """
    if videos is None:
        return [path]
    places = [path / f"{name}{suffix}" for name in videos]
    missing = [place.name for place in places if not place.exists()]
    if missing:
        raise DataError(
            f"{path} lacks videos",
            seen=f"{len(missing)} of {len(places)} missing: {', '.join(missing[:5])}",
            hint="Check the list of videos, or choose the annotations that belong to it.",
        )
    return places


def _named(results: Sequence[VideoResult], videos: Sequence[str] | None) -> list[VideoResult]:
    return [result for result in results if videos is None or result.name in videos]


def _annotated_only(result: VideoResult, frames: Sequence[int]) -> VideoResult:
    """Return a result with only the annotated frames of its video, as the evaluation of DAVIS does.

    Args:
        result: Result on all frames, or on the annotated ones.
        frames: Numbers of the annotated frames; no further frame exists if they are consecutive from 0.
    """
    index = {position: i for i, position in enumerate(result.positions or range(result.num_frames))}
    if list(frames) == list(range(len(frames))) or not all(frame in index for frame in frames):
        return result
    places = [index[frame] for frame in frames]
    tracks = [
        replace(track, masks={t: track.masks[i] for t, i in enumerate(places) if i in track.masks})
        for track in result.tracks
    ]
    return replace(result, num_frames=len(frames), tracks=tracks, timestamps=(), positions=())


def _read_mots(
    path: Path, classes: Sequence[str], numbering: str | None, videos: Sequence[str] | None
) -> tuple[list[VideoResult], Sequence[str]]:
    """Read ground truth of MOTS, and return it with the names of its classes."""
    names = (*_ten(classes)[: _IGNORE_CLASS - 1], _IGNORE)
    files = find_videos(path, videos if path.is_dir() else None, suffix=".txt")
    truth = [video for file in files for video in load(file, format="mots", classes=names, numbering=numbering)]
    found = sorted({video.classes for video in truth})
    if len(found) > 1:
        raise DataError(
            f"the files of {path} have different classes",
            seen="; ".join(", ".join(each) for each in found[:2]),
            expected="the same classes in all .tracks.json files, or no such files",
        )
    if found == [names]:
        return truth, classes
    return truth, [name for name in found[0] if name != _IGNORE]


def warn_of_missing(
    truth: AnnotationSet, results: Iterable[VideoResult], video_ids: Mapping[str, int] | None = None
) -> None:
    """Log a warning that names videos without a result, because all their objects count as missed.

    Args:
        truth: The ground truth.
        results: The results.
        video_ids: Map from the name of a result to the video id, for results not named after the video.
    """
    names = {result.name for result in results}
    ids = {number for name, number in (video_ids or {}).items() if name in names}
    missing = [video.name for video in truth.videos if video.name not in names and video.id not in ids]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        logger.warning(
            "%d of %d videos of %s have no result; their objects count as missed: %s",
            len(missing), len(truth.videos), truth.source, shown,
        )  # fmt: skip


def _results(
    source: PredictionSource,
    classes: Sequence[str] | None,
    truth: Sequence[VideoResult],
    numbering: str | None = None,
) -> list[VideoResult]:
    """Return the results; those of MOTS text without names get `classes`, empty ones the sizes of the ground truth."""
    if isinstance(source, VideoResult):
        return [source]
    if not isinstance(source, str | Path):
        found = list(source)
        results = [each for each in found if isinstance(each, VideoResult)]
        if len(results) != len(found):
            raise DataError("cannot evaluate a list of result entries", expected="VideoResults, or a path",
                            hint="Entries state no size of a video; save them as a file.")  # fmt: skip
        return results
    if classes is None or not Path(source).exists() or detect_format(source) != "mots":
        return load(source)
    videos = {video.name: (video.num_frames, video.height, video.width) for video in truth}
    return load(source, format="mots", classes=_ten(classes), videos=videos, numbering=numbering)


def _ten(classes: Sequence[str]) -> tuple[str, ...]:
    """Return names of all classes up to that of ignore regions."""
    return (*classes, *(f"class {i}" for i in range(len(classes) + 1, _IGNORE_CLASS + 1)))


def _one_class(result: VideoResult) -> VideoResult:
    tracks = [replace(track, label=0, scores=()) for track in result.tracks]
    return replace(result, classes=(_OBJECT.name,), tracks=tracks)


def _davis(source: str, results: Sequence[VideoResult]) -> AnnotationSet:
    objects = [(number, track, _OBJECT.id) for number, result in enumerate(results) for track in result.tracks]
    void = {(number, track.track_id) for number, track, _ in objects if track.track_id + 1 == VOID}
    return _annotation_set(source, results, (_OBJECT,), objects, void, metrics=("jf",))


def _mots(source: str, results: Sequence[VideoResult], classes: Sequence[str]) -> AnnotationSet:
    categories = tuple(Category(number, name) for number, name in enumerate(classes, start=1))
    ids = {category.name: category.id for category in categories} | {_IGNORE: _IGNORE_CLASS}
    objects, ignored = [], set()
    for number, result in enumerate(results):
        for track in result.tracks:
            name = result.classes[track.label]
            if name not in ids:
                raise DataError(
                    f"{source}: unknown class", seen=str(track.label + 1),
                    expected=f"1..{len(classes)}, or {_IGNORE_CLASS} (ignore)",
                )  # fmt: skip
            objects.append((number, track, ids[name]))
            if name == _IGNORE:
                ignored.add((number, track.track_id))
    return _annotation_set(source, results, categories, objects, ignored, metrics=("hota", "clear"))


def _annotation_set(
    source: str,
    results: Sequence[VideoResult],
    categories: tuple[Category, ...],
    objects: Iterable[tuple[int, Track, int]],
    ignored: set[tuple[int, int]],
    *,
    metrics: tuple[str, ...],
) -> AnnotationSet:
    """Return videos, numbered in the given order, with their objects, and the regions of tracks that are ignored."""
    videos = tuple(
        Video(number, r.height, r.width, tuple(f"{r.name}/{t:05d}.jpg" for t in range(r.num_frames)))
        for number, r in enumerate(results)
    )
    annotations: list[Annotation] = []
    regions: dict[int, list[Track]] = {}
    for number, track, category in objects:
        if (number, track.track_id) in ignored:
            regions.setdefault(number, []).append(track)
            continue
        masks = tuple(track.masks.get(t) for t in range(results[number].num_frames))
        areas = tuple(0.0 if mask is None else float(mask.area) for mask in masks)
        annotations.append(Annotation(len(annotations) + 1, number, category, masks, areas))
    return AnnotationSet(
        source,
        categories,
        videos,
        tuple(annotations),
        ignored={
            number: tuple(union(track.masks.get(t) for track in tracks) for t in range(results[number].num_frames))
            for number, tracks in regions.items()
        },
        metrics=metrics,
    )
