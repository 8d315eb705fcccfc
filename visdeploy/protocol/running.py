"""`benchmark`: run a bundle on all videos of a data set, write the results, evaluate them, measure the speed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from visdeploy.arguments import check_flag, check_integer, check_path
from visdeploy.atomic import write_text
from visdeploy.brief import shorten
from visdeploy.bundle import Bundle
from visdeploy.errors import ConfigError, DataError, SourceError, VisdeployError
from visdeploy.evaluation import check_metrics, evaluate
from visdeploy.evaluation.jf import MAX_PROPOSALS
from visdeploy.evaluation.report import Report
from visdeploy.formats import load, save
from visdeploy.json_fields import Entry, read_json
from visdeploy.outputs import check_distinct, check_inputs_kept, check_new, check_writable
from visdeploy.partial import PartialFolder, fingerprint
from visdeploy.predictor import VISPredictor
from visdeploy.profiling import Profiler, Stage
from visdeploy.protocol.classes import best_tracks, check_class_map, match_classes, with_categories
from visdeploy.protocol.datasets import Clip, Dataset, Kind, open_dataset
from visdeploy.protocol.submission import outputs_of, write_archive, write_results
from visdeploy.results import VideoResult
from visdeploy.space import check_space

Progress = Callable[[int, int, str], None]
"""Function called after every frame with the number of processed frames, that of all frames, and the video's name."""


@dataclass(frozen=True)
class Benchmark:
    """Result of `benchmark`.

    Attributes:
        out: File or folder with the results; None if they were not kept.
        zip: The archive; None if there is none.
        images: Folder that contains the images.
        videos: Number of videos.
        frames: Number of frames.
        seconds: Time of all videos, from the first image read to the last result.
        reading: Part of it in which images were read and decoded.
        device: Device of the graph.
        scores: Scores; None if the data set has no annotations.
    """

    out: Path | None
    zip: Path | None
    images: Path
    videos: int
    frames: int
    seconds: float
    reading: float
    device: str
    scores: Report | None

    @property
    def fps(self) -> float:
        """Frames per second, with the reading of images."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def fps_without_reading(self) -> float:
        """Frames per second of everything but the reading of images: preprocessing, graph, decoding, tracking."""
        return self.frames / (self.seconds - self.reading) if self.seconds > self.reading else 0.0


def benchmark(
    bundle: str | os.PathLike[str] | Bundle,
    annotations: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    videos: str | os.PathLike[str] | None = None,
    zip: str | os.PathLike[str] | None = None,
    format: Kind | None = None,
    numbering: str | None = None,
    class_map: Mapping[str, str] | None = None,
    max_tracks: int | None = None,
    filter_tracks: bool = False,
    metrics: Sequence[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    key: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Run a bundle on a whole data set, write the results as its evaluation server expects them, and evaluate them.

    The progress is kept in `OUT.partial`, video by video. A resumed run gives the files of an uninterrupted one.

    Args:
        bundle: Path of the bundle, or an opened one.
        annotations: A YouTube-VIS file (2019, 2021, OVIS; with objects or without); a folder of DAVIS annotations or
            of MOTS text; a list of the names of videos; or a folder of folders of images.
        out: File (YouTube-VIS) or folder (DAVIS, MOTS) to write; by default the results are not kept.
        images: Folder with the images, or one whose subfolder `JPEGImages` contains them, see
            `visdeploy.protocol.datasets.open_dataset`. By default the folder of the YouTube-VIS file.
        videos: List of the names of the videos to take, one a line; by default all.
        zip: Archive to write, with `results.json`, or with the folders of PNGs or the text files.
        format: `davis` or `mots`, where the annotations do not decide it.
        numbering: `kitti` (by default) or `motschallenge`: numbers of the frames in images and text of MOTS.
        class_map: Map from class of the bundle to category, for classes whose names differ. Classes without a category
            are left out. Classes do not count for DAVIS.
        max_tracks: Keep so many tracks of a video, those with the highest scores; by default 20 for DAVIS, else all.
        filter_tracks: Filter masks and tracks by the rules of KITTI MOTS, see `visdeploy.tracking.filtering`.
        metrics: See `visdeploy.evaluate`.
        device: See `VISPredictor`.
        threads: See `VISPredictor`.
        tf32: See `VISPredictor`.
        key: See `VISPredictor`.
        resume: Continue an interrupted run.
        overwrite: Replace existing outputs, and delete the progress of an earlier run unless `resume` is given.
        progress: Called after every frame.

    Raises:
        ConfigError: An argument is invalid, or the run to be resumed differs from this one.
        DataError: The annotations are malformed, or images are missing or do not belong to them.
        OutputError: An output exists, cannot be written, or would replace an input.
        SourceError: An image cannot be decoded.
    """
    if out is None:
        if resume or zip is not None:
            raise ConfigError("a benchmark without results", seen="resume, or zip", expected="out, a file or folder")
        with TemporaryDirectory() as folder:
            done = benchmark(
                bundle, annotations, Path(folder) / "results", images=images, videos=videos, format=format,
                numbering=numbering, class_map=class_map, max_tracks=max_tracks, filter_tracks=filter_tracks,
                metrics=metrics, device=device, threads=threads, tf32=tf32, key=key, progress=progress,
            )  # fmt: skip
            return replace(done, out=None)
    names = {} if class_map is None else check_class_map(class_map)
    metrics = None if metrics is None else check_metrics(metrics)
    if max_tracks is not None:
        max_tracks = check_integer(max_tracks, "max_tracks of a benchmark", minimum=1)
    if progress is not None and not callable(progress):
        raise ConfigError("progress of a benchmark", seen=shorten(progress), expected="a function, or None")
    flags = {"filter_tracks": filter_tracks, "tf32": tf32, "resume": resume, "overwrite": overwrite}
    for flag, value in flags.items():
        check_flag(value, f"{flag} of a benchmark")
    target, packed = check_path(out, "out of a benchmark"), _path(zip, "zip")
    dataset = open_dataset(
        check_path(annotations, "annotations of a benchmark"), _path(images, "images"), videos=_path(videos, "videos"),
        format=format, numbering=numbering,
    )  # fmt: skip
    if filter_tracks and dataset.kind != "mots":
        raise ConfigError("filter_tracks of a benchmark", seen=f"results as {dataset.kind}", expected="results as mots")
    if dataset.kind != "ytvis" and target.suffix.lower() in (".json", ".zip"):
        raise ConfigError("out of a benchmark", seen=str(target), expected=f"a folder, for results as {dataset.kind}")
    with PartialFolder(target, resume=resume, overwrite=overwrite) as partial:
        opened = bundle.path if isinstance(bundle, Bundle) else bundle
        inputs = [Path(each) for each in (opened, annotations, key) if each is not None]
        _check_outputs(dataset, target, packed, inputs, partial, overwrite=overwrite)
        profiler = Profiler()
        predictor = VISPredictor(bundle, device, threads, tf32=tf32, profiler=profiler, key=key)
        run = _Run(dataset, predictor, names, max_tracks, str(annotations))
        partial.open(run.about(tf32=tf32))
        run.process(partial, progress)
        results, times = run.results(partial)
        write_results(dataset, results, target, filter_tracks=filter_tracks)
        if packed is not None:
            write_archive(dataset, target, packed)
        scores = _evaluate(dataset, target, metrics)
        partial.remove()
    return Benchmark(
        target, packed, dataset.images, len(dataset.clips), dataset.num_frames, sum(t[0] for t in times),
        sum(t[1] for t in times), predictor.device, scores,
    )  # fmt: skip


def _path(value: Any, what: str) -> Path | None:
    return None if value is None else check_path(value, f"{what} of a benchmark")


def _check_outputs(
    dataset: Dataset,
    out: Path,
    archive: Path | None,
    inputs: Sequence[Path],
    partial: PartialFolder,
    *,
    overwrite: bool,
) -> None:
    outputs = outputs_of(dataset, out, archive)
    images = (file for clip in dataset.clips for file in clip.files)
    check_inputs_kept(outputs, (*inputs, *dataset.files, *images))
    check_distinct(outputs)
    if not overwrite:
        check_new(outputs, hint="Pass --overwrite to replace it, or choose another path.")
    check_writable(outputs)
    check_space(outputs)
    partial.check(outputs)


class _Run:
    """Processing of the videos of a data set, each of which is kept in the partial folder when it is done."""

    def __init__(
        self,
        dataset: Dataset,
        predictor: VISPredictor,
        class_map: Mapping[str, str],
        max_tracks: int | None,
        source: str,
    ) -> None:
        self._dataset, self._predictor, self._class_map = dataset, predictor, class_map
        self._most = MAX_PROPOSALS if max_tracks is None and dataset.kind == "davis" else max_tracks
        self._labels = None
        if dataset.categories is None and class_map:
            raise ConfigError("class map of a benchmark", seen=f"{class_map}", expected="none, classes do not count")
        if dataset.categories is not None:
            self._labels = match_classes(predictor.classes, dataset.categories, class_map, source)

    def about(self, *, tf32: bool) -> dict[str, str]:
        """Return what the results depend on, see `PartialFolder.open`."""
        options = {
            "class_map": dict(sorted(self._class_map.items())),
            "max_tracks": self._most,
            "device": self._predictor.device.partition(":")[0],
            "tf32": tf32,
        }
        return {"bundle": self._predictor.identity, **self._dataset.about(), "options": json.dumps(options)}

    def process(self, partial: PartialFolder, progress: Progress | None) -> None:
        """Process the videos that the folder does not contain yet."""
        folder, done = partial.create(), 0
        for number, clip in enumerate(self._dataset.clips):
            if _times(folder, number).exists():
                self._check_kept(partial, number, clip)
            else:
                self._process(folder, number, clip, done, progress)
            done += len(clip.files)
            if progress is not None:
                progress(done, self._dataset.num_frames, clip.name)

    def _process(self, folder: Path, number: int, clip: Clip, done: int, progress: Progress | None) -> None:
        def advance(frames: int, _: int | None) -> None:
            if progress is not None:
                progress(done + frames, self._dataset.num_frames, clip.name)

        reading = self._reading()
        started = time.perf_counter()
        try:
            video = self._predictor(list(clip.files), name=clip.name, on_frame=advance)
        except SourceError as error:
            hint = "Replace the image. --resume continues the run."
            raise SourceError(error.what, seen=error.seen, expected=error.expected, hint=hint) from error
        seconds, reading = time.perf_counter() - started, self._reading() - reading
        if clip.size is not None and clip.size != (video.height, video.width):
            raise DataError(
                f"the images of {clip.name!r} do not have the size that the annotations state",
                seen=f"{video.height}x{video.width}",
                expected="{}x{}".format(*clip.size),
            )
        if self._labels is not None:
            video = with_categories(video, self._labels, self._dataset.categories or ())
        video.positions = clip.numbers
        save(best_tracks(video, self._most), _kept(folder, number), format="coco")
        times = {"seconds": seconds, "reading": reading, "images": fingerprint(clip.files)}
        write_text(_times(folder, number), json.dumps(times))

    def _check_kept(self, partial: PartialFolder, number: int, clip: Clip) -> None:
        """Check that the images of a video which is done are still the same."""
        if _entry(partial, number).text("images") != fingerprint(clip.files):
            raise ConfigError(
                f"cannot resume {partial.path}: it was made with other images of {clip.name!r}",
                hint="Resume with the same images, or pass --overwrite instead of --resume.",
            )

    def _reading(self) -> float:
        return self._predictor.profiler.seconds.get(Stage.DECODE, 0.0)

    def results(self, partial: PartialFolder) -> tuple[list[VideoResult], list[tuple[float, float]]]:
        """Return the results of all videos, and for each one its time and that of reading its images."""
        results, times = [], []
        for number, clip in enumerate(self._dataset.clips):
            try:
                (video,) = load(_kept(partial.path, number), format="coco")
                entry = _entry(partial, number)
                times.append((entry.number("seconds"), entry.number("reading")))
            except (VisdeployError, ValueError) as error:
                raise partial.damaged(error) from error
            if (video.name, video.num_frames) != (clip.name, len(clip.files)):
                raise partial.damaged(f"{video.num_frames} frames of {video.name!r} for {clip.name!r}")
            results.append(video)
        return results, times


def _kept(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.coco.json"


def _times(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.time.json"


def _entry(partial: PartialFolder, number: int) -> Entry:
    path = _times(partial.path, number)
    try:
        return Entry.of(str(path), read_json(path))
    except DataError as error:
        raise partial.damaged(error) from error


def _evaluate(dataset: Dataset, out: Path, metrics: Sequence[str] | None) -> Report | None:
    """Evaluate the written files, so that the scores are those that a server would compute."""
    if dataset.truth is None:
        return None
    if dataset.kind == "ytvis":
        return evaluate(out, dataset.truth, metrics=metrics)
    names = [clip.name for clip in dataset.clips]
    results = load(out, format=dataset.kind)
    return evaluate(results, dataset.truth, metrics=metrics, numbering=dataset.numbering, videos=names)
