"""Results of a data set as the evaluation servers expect them: a file or a folder, and an archive of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from visdeploy.atomic import replacing_file
from visdeploy.formats import planned_outputs, save
from visdeploy.outputs import Output
from visdeploy.protocol.datasets import Dataset
from visdeploy.results import VideoResult
from visdeploy.space import least_of_pngs

_DATE = (1980, 1, 1, 0, 0, 0)  # equal results give equal archives


def outputs_of(dataset: Dataset, out: Path, archive: Path | None) -> list[Output]:
    """Return the files and folders that are written for a data set.

    Raises:
        DataError: Two videos would share a folder, or something else is in its place.
    """
    if dataset.kind == "ytvis":
        found = [Output(out)]
    else:
        planned = planned_outputs([clip.name for clip in dataset.clips], out, format=dataset.kind)
        frames = iter([len(clip.files) for clip in dataset.clips])
        found = [Output(p.path, p.folder, least_of_pngs(next(frames))) if p.folder else p for p in planned]
    return found + ([] if archive is None else [Output(archive)])


def write_results(dataset: Dataset, results: Sequence[VideoResult], out: Path, *, filter_tracks: bool) -> None:
    """Write the results of all videos in the format of the data set.

    Args:
        dataset: The data set.
        results: Results in the order of its videos.
        out: File or folder.
        filter_tracks: Filter masks and tracks by the rules of KITTI MOTS.
    """
    if dataset.kind == "ytvis":
        ids = {clip.name: clip.id for clip in dataset.clips}
        save(results, out, format="ytvis", ground_truth=dataset.listed, video_ids=ids, official=True)
    else:
        options: dict[str, Any] = {"filter_tracks": True} if filter_tracks else {}
        if dataset.numbering is not None:
            options["numbering"] = dataset.numbering
        save(results, out, format=dataset.kind, **options)


def write_archive(dataset: Dataset, out: Path, archive: Path) -> None:
    """Write a zip archive with `results.json`, with a folder of PNGs for each video, or with a text for each video."""
    with replacing_file(archive) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for path, name in _members(dataset, out):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if path.suffix == ".png" else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, file.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)


def _members(dataset: Dataset, out: Path) -> Iterator[tuple[Path, str]]:
    if dataset.kind == "ytvis":
        yield out, "results.json"
        return
    for each in planned_outputs([clip.name for clip in dataset.clips], out, format=dataset.kind):
        if each.folder:
            yield from ((file, f"{each.path.name}/{file.name}") for file in sorted(each.path.glob("*.png")))
        elif each.path.suffix == ".txt":
            yield each.path, each.path.name
