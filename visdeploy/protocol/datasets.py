"""Videos of a data set, in the trees of YouTube-VIS, DAVIS and MOTS: their images and their annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from visdeploy.errors import ConfigError, DataError
from visdeploy.evaluation.annotations import AnnotationSet, Video, read_annotations
from visdeploy.evaluation.folders import MOTS_CLASSES, find_videos
from visdeploy.formats import detect_format
from visdeploy.formats.davis import frame_files, number_frames, video_folders
from visdeploy.formats.mots import is_text, text_files
from visdeploy.formats.mots_numbering import DEFAULT, NUMBERINGS, numbering_of
from visdeploy.video.images import list_folder, size_as_shown

Kind = Literal["ytvis", "davis", "mots"]

_IMAGE_FOLDERS = (
    "",
    "JPEGImages",
    "JPEGImages/480p",
    "image_02",
    "training/image_02",
    "images",
    "train/images",
    "train",
)
_FRAMES = "img1"
"""Folder of the frames inside that of a video, in the trees of MOTSChallenge."""


@dataclass(frozen=True)
class Clip:
    """Video of a data set.

    Attributes:
        name: Name, unique in the data set.
        files: Image of each frame.
        id: Video id of YouTube-VIS; None for other data sets.
        size: Height and width of the frames according to the annotations, if these state it.
        numbers: Numbers of the frames in their file names, if these are not 0, 1, 2, ...
    """

    name: str
    files: tuple[Path, ...]
    id: int | None = None
    size: tuple[int, int] | None = None
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Videos to be processed, and their annotations.

    Attributes:
        kind: Format of the results.
        images: Folder that contains the images.
        clips: Videos in the order of their results.
        files: Files that select the videos: annotation file, list of names.
        truth: Annotations, if there are any: a set with video ids, or the path of a folder or text file.
        listed: Categories and video ids of a YouTube-VIS file, with or without objects.
        numbering: Numbers of the frames in MOTS text, see `visdeploy.formats.mots`; None is that of KITTI MOTS.
    """

    kind: Kind
    images: Path
    clips: tuple[Clip, ...]
    files: tuple[Path, ...]
    truth: AnnotationSet | Path | None = None
    listed: AnnotationSet | None = field(default=None, repr=False)
    numbering: str | None = None

    @property
    def categories(self) -> tuple[str, ...] | None:
        """Names of the categories; None if classes do not count."""
        if self.listed is not None:
            return tuple(category.name for category in self.listed.categories)
        return MOTS_CLASSES if self.kind == "mots" else None

    @property
    def num_frames(self) -> int:
        """Number of frames of all videos."""
        return sum(len(clip.files) for clip in self.clips)

    def about(self) -> dict[str, str]:
        """Return a checksum of everything but the images that decides about the results."""
        videos = [(clip.name, clip.id, clip.size, [str(file.name) for file in clip.files]) for clip in self.clips]
        digest = sha256(json.dumps([self.kind, self.categories, videos]).encode())
        for file in self.files:
            digest.update(file.read_bytes())
        return {"annotations": digest.hexdigest()[:16]}


def open_dataset(
    annotations: Path,
    images: Path | None = None,
    *,
    videos: Path | None = None,
    format: Kind | None = None,
    numbering: str | None = None,
) -> Dataset:
    """Find the videos of a data set and check that their images exist.

    Args:
        annotations: A YouTube-VIS file; a folder of DAVIS annotations or of MOTS text; a list of the names of videos;
            or, without `images`, a folder of folders of images.
        images: Folder with the images, or one whose subfolder `JPEGImages`, `JPEGImages/480p`, `image_02`,
            `training/image_02`, `images`, `train/images` or `train` contains them. By default the folder of the
            YouTube-VIS file. The frames of a video may be in a subfolder `img1` of its folder.
        videos: List of the names of the videos to take, one a line (ImageSets, seqmap); by default all.
        format: Format of the results, `davis` or `mots`, where the annotations do not decide it.
        numbering: `kitti` (by default) or `motschallenge`: numbers of the frames in images and text of MOTS.

    Raises:
        ConfigError: The arguments do not belong together.
        DataError: A file is malformed, or images are missing.
    """
    if format is not None and format not in get_args(Kind):
        raise ConfigError("format of the results", seen=repr(format), expected=", ".join(get_args(Kind)))
    if not annotations.exists():
        raise DataError(f"{annotations} does not exist", hint="Check the path.")
    names = None if videos is None else read_names(videos)
    if annotations.is_file() and annotations.suffix.lower() == ".json":
        if format not in (None, "ytvis"):
            raise ConfigError("format of the results", seen=str(format), expected="ytvis for a YouTube-VIS file")
        found = _from_json(annotations, images or annotations.parent, names)
    elif format == "ytvis":
        raise ConfigError("format of the results", seen=format, expected="davis or mots without a YouTube-VIS file")
    else:
        found = _from_folders(annotations, images, names, format)
    if numbering is not None and (
        found.kind != "mots" or not isinstance(numbering, str) or numbering not in NUMBERINGS
    ):
        expected = f"{' or '.join(NUMBERINGS)}, for results as mots"
        raise ConfigError("numbering of a benchmark", seen=f"{numbering!r:.60} for {found.kind}", expected=expected)
    found = replace(found, numbering=numbering, files=found.files if videos is None else (*found.files, videos))
    if not found.clips:
        raise DataError(f"{annotations} contains no videos")
    _check_images(found, annotations)
    if found.kind == "mots":
        _check_numbers(found)
    return found


def read_names(path: Path) -> tuple[str, ...]:
    """Return the names of videos in a list: the first word of each line.

    Raises:
        DataError: The file is not such a list.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list of videos {path}", seen=str(error)[:120]) from error
    names = tuple(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    wrong = [name for name in names if not _is_safe(name) or "/" in name]
    if wrong or not names:
        raise DataError(
            f"{path} is not a list of videos",
            seen=repr(wrong[0]) if wrong else "no names",
            expected="the name of a video folder in each line",
        )
    return names


def _is_safe(name: str) -> bool:
    """Return whether a relative path stays in its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts and re.match(r"[A-Za-z]:", name) is None


def _from_json(path: Path, images: Path, names: Sequence[str] | None) -> Dataset:
    listed = read_annotations(path, require_annotations=False)
    if names is not None:
        listed = listed.only(names)
    for video in listed.videos:
        outside = next((name for name in video.file_names if not _is_safe(name)), None)
        if outside is not None:
            raise DataError(
                f"{path}: video {video.id}: a file name leads out of the folder of images",
                seen=repr(outside),
                expected="VIDEO/00000.jpg",
            )
    root = _root(images, [video.file_names[0] for video in listed.videos])
    clips = tuple(
        Clip(name, tuple(root / file for file in video.file_names), video.id, (video.height, video.width))
        for name, video in zip(_unique_names(listed.videos), listed.videos, strict=True)
    )
    return Dataset("ytvis", root, clips, (path,), listed if listed.annotations else None, listed)


def _unique_names(videos: Sequence[Video]) -> Iterator[str]:
    """Yield the folder of each video, with its id where several videos share a folder."""
    folders = [str(video.folder) for video in videos]
    for video, folder in zip(videos, folders, strict=True):
        yield folder if folder != "." and folders.count(folder) == 1 else f"{folder}#{video.id}"


def _from_folders(path: Path, images: Path | None, names: Sequence[str] | None, format: Kind | None) -> Dataset:
    truth: Path | None = path
    kind: Kind = format or "davis"
    if path.is_file() and not is_text(path):
        listed = read_names(path)
        names = listed if names is None else [name for name in names if name in listed]
        truth = None
    elif path.is_file() or (images is not None and detect_format(path) == "mots"):
        kind = "mots"
    if images is None:
        if path.is_file():
            raise ConfigError(f"the images of {path} are unknown", hint="Pass --images DIR.")
        _check_no_annotations(path)
        images, truth = path, None
    if truth is not None and format not in (None, kind):
        raise ConfigError(f"format of the results for {path}", seen=str(format), expected=kind)
    found = names if names is not None else _names_in(path) if truth is not None else _folders_in(images)
    root = _root(images, found)
    if names is None and truth is None:
        found = _folders_in(root)
    if truth is not None and truth.is_dir():
        find_videos(truth, found, suffix=".txt" if kind == "mots" else "")
    clips = tuple(_clip(root, name, kind, truth) for name in found)
    return Dataset(kind, root, clips, () if path.is_dir() else (path,), truth)


def _check_no_annotations(path: Path) -> None:
    """Check that a folder which is given without images does not contain annotations instead."""
    from PIL import Image

    first = next((png for folder in video_folders(path) for png in sorted(folder.glob("*.png"))), None)
    mode = ""
    if first is not None:
        with suppress(OSError, SyntaxError, ValueError), Image.open(first) as image:  # damage is reported later
            mode = image.mode
    if first is not None and mode == "P":
        seen = f"annotations, because {first.name} is indexed"
        raise ConfigError(f"the images of {path} are unknown", seen=seen, hint="Pass --images DIR.")


def _names_in(folder: Path) -> list[str]:
    """Return the names of the videos in a folder of annotations, or that of a text file."""
    if folder.is_file():
        return [folder.stem]
    if texts := text_files(folder):
        return [text.stem for text in texts]
    return [each.name for each in video_folders(folder)] or _folders_in(folder)


def _folders_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")


def _root(images: Path, first: Sequence[str]) -> Path:
    """Return the folder, or that of its known subfolders, which contains one of the given files or folders."""
    places = [images / name if name else images for name in _IMAGE_FOLDERS]
    if images.name and all(name.split("/")[0] == images.name for name in first):
        places.append(images.parent)
    if set(first) & {"JPEGImages", "image_02", "images"}:  # the names of a whole tree, not those of videos
        return next((place for place in reversed(places) if place.is_dir()), images)
    return next((place for place in places if any((place / name).exists() for name in first)), images)


def _clip(root: Path, name: str, kind: Kind, truth: Path | None) -> Clip:
    folder = root / name / _FRAMES if (root / name / _FRAMES).is_dir() else root / name
    files = tuple(list_folder(folder)) if folder.is_dir() else ()
    if kind != "davis":
        return Clip(name, files)
    numbers = tuple(number_frames(files))
    annotated = () if truth is None else tuple(frame_files(truth / name))
    if files and not set(annotated) <= set(numbers) and len(annotated) != len(files):
        raise DataError(
            f"the annotations of {name!r} do not belong to its images",
            seen=f"frames {sorted(set(annotated) - set(numbers))[:3]} in {truth} alone",
            expected=f"frames of {root / name}",
        )
    return Clip(name, files, numbers=() if numbers == tuple(range(len(files))) else numbers)


def _check_images(dataset: Dataset, annotations: Path) -> None:
    """Check that all images exist, and that the first one of each video has the size that the annotations state."""
    missing = [file for clip in dataset.clips for file in clip.files if not file.is_file()]
    missing += [dataset.images / clip.name for clip in dataset.clips if not clip.files]
    if missing:
        raise DataError(
            f"images of {annotations} are missing",
            seen=f"{len(missing)} of {max(dataset.num_frames, len(missing))}, such as {missing[0]}",
            expected="DIR/VIDEO/00000.jpg or DIR/JPEGImages/VIDEO/00000.jpg, as the annotations name them",
            hint="Pass the folder of the video folders as --images.",
        )
    for clip in dataset.clips:
        size = None if clip.size is None else _size(clip.files[0])
        if clip.size is not None and size is not None and size != clip.size:
            raise DataError(
                f"{clip.files[0]} does not have the size that {annotations} states",
                seen="{}x{}".format(*size),
                expected="{}x{}".format(*clip.size),
                hint="Use the images for which the annotations were made.",
            )


def _check_numbers(dataset: Dataset) -> None:
    """Check that the images of MOTS are numbered without gaps, because its text refers to frames by their number."""
    first = numbering_of(dataset.numbering or DEFAULT).first_frame
    for clip in dataset.clips:
        numbers = list(number_frames(clip.files))
        in_order = numbers == list(range(len(numbers)))  # also images without numbers
        if numbers == list(range(first, first + len(numbers))) or (in_order and not clip.files[0].stem.isdecimal()):
            continue
        other = next((name for name, each in NUMBERINGS.items() if each.first_frame == numbers[0] != first), None)
        raise DataError(
            f"the images of {clip.name!r} are not numbered as in {dataset.numbering or DEFAULT} MOTS",
            seen=f"{len(numbers)} images, {clip.files[0].name} to {clip.files[-1].name}",
            expected=f"numbers without gaps from {first} on",
            hint=f"Pass --numbering {other}." if other else "Add the missing images.",
        )


def _size(file: Path) -> tuple[int, int] | None:
    """Return height and width of an image as it is shown; None if it cannot be read."""
    from PIL import Image

    try:
        return size_as_shown(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
