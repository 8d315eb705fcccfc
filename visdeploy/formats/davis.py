"""DAVIS folders: one indexed PNG per frame, pixel value = track id + 1, 0 = background.

If an id is above 253, the tracks have the values 1, 2, ... in the order of the result instead. Each video is a folder
`PATH/NAME/` with `00000.png`, `00001.png`, ... in the DAVIS palette, and `tracks.json` with the metadata that pixels
cannot store. The numbers are the positions of the frames in their source. A pixel belongs to one track only: where
masks overlap, it goes to the higher score, and the number of reassigned pixels is logged and stored in `tracks.json`.
Folders of other tools have no `tracks.json`: a frame has the number in its file name, and 255 is void, as in the
annotations of DAVIS.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import check_flag
from visdeploy.atomic import replacing_folder
from visdeploy.errors import DataError
from visdeploy.formats.common import sorted_tracks
from visdeploy.formats.overlaps import owner_map
from visdeploy.formats.sidecar import paths_by_name, read_sidecar, sidecar_text
from visdeploy.masks import Mask
from visdeploy.outputs import Output
from visdeploy.results import Track, VideoResult

logger = logging.getLogger(__name__)

_MOST_OBJECTS = 254
"""Largest pixel value of an object."""
VOID = 255
"""Pixel value without a known object in the annotations of DAVIS."""
_LAST_FRAME = 999_999
_SIDECAR = "tracks.json"


def save(results: Sequence[VideoResult], path: Path) -> None:
    """Write one folder per video into `path`. A folder of the same video is replaced, other files are kept."""
    folders = [output.path for output in outputs([r.name for r in results], path)]
    for result in results:
        _check(result)
    for result, folder in zip(results, folders, strict=True):
        with replacing_folder(folder) as temporary:
            _write(result, temporary)


def outputs(names: Sequence[str], path: Path) -> list[Output]:
    """Return the folders that `save` writes for videos of these names.

    Raises:
        DataError: A folder of that name is not a DAVIS result, or two videos would share one.
    """
    folders = paths_by_name(names, path)
    for folder in folders:
        _check_folder(folder)
    return [Output(folder, folder=True) for folder in folders]


def _check(result: VideoResult) -> None:
    if len(result.tracks) > _MOST_OBJECTS:
        raise DataError(
            f"video {result.name!r} has too many tracks for indexed PNGs",
            seen=str(len(result.tracks)),
            expected=f"up to {_MOST_OBJECTS}: one byte per pixel, 0 for the background, 255 for void pixels",
            hint="Save it as ytvis, coco, mots or parquet.",
        )


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    strange = None
    if not folder.is_dir():
        strange = "a file"
    else:
        strange = next((p.name for p in folder.iterdir() if p.suffix != ".png" and p.name != _SIDECAR), None)
    if strange:
        raise DataError(f"{folder} exists and is not a DAVIS result", seen=strange,
                        expected="no folder, or one of an earlier result",
                        hint="It would be replaced as a whole; choose another path or remove it.")  # fmt: skip


def _object_numbers(result: VideoResult) -> dict[int, int]:
    """Return a map from track id to pixel value."""
    if all(track.track_id < _MOST_OBJECTS for track in result.tracks):
        return {track.track_id: track.track_id + 1 for track in result.tracks}
    # methods that start many tracks and keep a few, such as VIShv, have large ids in long videos
    return {track.track_id: number for number, track in enumerate(result.tracks, start=1)}


def _write(result: VideoResult, folder: Path) -> None:
    from PIL import Image

    objects = _object_numbers(result)
    palette = davis_palette().tobytes()
    numbers = result.positions or range(result.num_frames)
    digits = max(5, len(str(max(numbers, default=0))))
    masks = moved = 0
    for frame in result.frames():
        owners, lost = owner_map(frame)
        moved += lost
        masks += int(np.count_nonzero(np.unique(owners)))
        values = np.array([0, *(objects[i.track_id] for i in frame)], np.uint8)
        image = Image.fromarray(values[owners])
        image.putpalette(palette)
        image.save(folder / f"{numbers[frame.index]:0{digits}d}.png")
    (folder / _SIDECAR).write_text(sidecar_text(result, objects, masks, moved), encoding="utf-8")


def davis_palette() -> npt.NDArray[np.uint8]:
    """Return the colour palette of PASCAL VOC and DAVIS, uint8, `(256, 3)`: bits of the index spread over RGB."""
    index = np.arange(256)
    palette = np.zeros((256, 3), np.int64)
    for level in range(3):
        for channel in range(3):
            palette[:, channel] |= (index >> (3 * level + channel) & 1) << (7 - level)
    return palette.astype(np.uint8)


def load(path: Path, *, keep_void: bool = False) -> list[VideoResult]:
    """Read one video folder, or every video folder in `path`, in order of their names.

    The tracks of a folder without `tracks.json`, as other tools write it, get one class `object` and score 1. Its
    frames have the numbers of the file names, so that a missing PNG is a frame without objects.

    Args:
        path: Folder.
        keep_void: Return void pixels (255) of such folders as a track with id 254 instead of leaving them out.
    """
    keep_void = check_flag(keep_void, "keep_void")
    if not path.is_dir():
        raise DataError(f"{path} is not a DAVIS folder", seen="a file", expected="a folder of indexed PNGs")
    folders = video_folders(path)
    if not folders:
        raise DataError(f"{path} contains no DAVIS results", expected="folders with indexed PNGs named 00000.png, ...")
    results = [_read(folder, keep_void=keep_void) for folder in folders]
    gaps = [f.name for f, r in zip(folders, results, strict=True) if len(frame_files(f)) < r.num_frames]
    if gaps:
        shown = ", ".join(gaps[:5]) + (", ..." if len(gaps) > 5 else "")
        logger.warning("%s: %d of %d videos have frames without a PNG: %s", path, len(gaps), len(folders), shown)
    return results


def video_folders(path: Path) -> list[Path]:
    """Return the folder itself if it is the folder of a video, else all video folders in it in order of their names."""
    return [path] if _is_video(path) else sorted(p for p in path.iterdir() if p.is_dir() and _is_video(p))


def _is_video(folder: Path) -> bool:
    return not folder.name.startswith(".") and ((folder / _SIDECAR).is_file() or bool(_images(folder)))


def _images(folder: Path) -> list[Path]:
    """Return the PNGs in a folder, without hidden files such as macOS's `._00000.png`."""
    return [p for p in folder.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith(".") and p.is_file()]


def frame_files(folder: Path) -> dict[int, Path]:
    """Return a map from frame number to PNG, in ascending order, see `number_frames`."""
    return number_frames(sorted(_images(folder), key=lambda p: (len(p.stem), p.stem)))


def number_frames(files: Sequence[Path]) -> dict[int, Path]:
    """Return a map from frame number to file, in ascending order.

    The number is the last one in the file name. If a name has none, or a text before or after the number that differs
    from that of the other names, or a number too large for a frame (such as a time), the frames are numbered in order.

    Raises:
        DataError: Two files have the same number.
    """
    parts = [part for part in (re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", file.stem) for file in files) if part]
    numbers = [int(part[2]) if len(part[2]) < 20 else _LAST_FRAME + 1 for part in parts]
    around = {(part[1], part[3]) for part in parts}
    if len(parts) < len(files) or len(around) > 1 or max(numbers, default=0) > _LAST_FRAME:
        return dict(enumerate(files))
    found: dict[int, Path] = {}
    for number, file in sorted(zip(numbers, files, strict=True)):
        if number in found:
            raise DataError(f"{file.parent} has two files of frame {number}", seen=f"{found[number].name}, {file.name}")
        found[number] = file
    return found


def _read(folder: Path, *, keep_void: bool) -> VideoResult:
    files = frame_files(folder)
    sidecar = read_sidecar(folder / _SIDECAR) if (folder / _SIDECAR).is_file() else None
    if sidecar is not None:
        result, objects = sidecar.result, sidecar.objects
        in_order = list(range(result.num_frames))
        if list(files) not in (in_order, list(result.positions) or in_order):
            raise DataError(f"{folder} is incomplete", seen=f"{len(files)} PNGs", expected=f"{result.num_frames}",
                            hint="Copy the folder again.")  # fmt: skip
        files = dict(enumerate(files.values()))
    else:
        height, width = _read_png(next(iter(files.values()))).shape
        result, objects = VideoResult(folder.name, height, width, max(files) + 1, ("object",)), {}
    for index, file in files.items():
        numbers = _read_png(file)
        if numbers.shape != (result.height, result.width):
            raise DataError(f"{file}: wrong size", seen=f"{numbers.shape[0]}x{numbers.shape[1]}",
                            expected=f"{result.height}x{result.width}")  # fmt: skip
        _add_frame(result, objects, index, numbers, file, open_ended=sidecar is None)
    found = sum(len(t.masks) for t in result.tracks)
    if sidecar is not None and found != sidecar.masks:
        raise DataError(
            f"{folder} was changed", seen=f"{found} masks", expected=f"{sidecar.masks} according to its {_SIDECAR}"
        )
    if sidecar is None and not keep_void:
        _leave_out_void(result)
    result.tracks = sorted_tracks(result.tracks)
    return result


def _leave_out_void(result: VideoResult) -> None:
    objects = [track for track in result.tracks if track.track_id + 1 != VOID]
    if result.tracks and not objects:
        logger.warning("%s: all pixels with a number have %d, which is void, not an object", result.name, VOID)
    result.tracks = objects


def _add_frame(
    result: VideoResult, objects: dict[int, int], index: int, numbers: npt.NDArray[Any], file: Path, *, open_ended: bool
) -> None:
    for number in np.unique(numbers):
        if number == 0:
            continue
        if int(number) not in objects:
            if not open_ended:
                raise DataError(f"{file}: pixel value without a track", seen=str(number),
                                expected=f"values of {_SIDECAR}: {sorted(objects)}")  # fmt: skip
            objects[int(number)] = len(result.tracks)
            result.tracks.append(Track(int(number) - 1, 0, 1.0))
        result.tracks[objects[int(number)]].masks[index] = Mask.encode(numbers == number)


def _read_png(file: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not a readable PNG", seen=str(error)[:120]) from error
    if mode not in ("P", "L") or pixels.dtype != np.uint8:
        raise DataError(
            f"{file} is not an indexed PNG", seen=f"mode {mode}", expected="mode P, one object number per pixel"
        )
    return pixels
