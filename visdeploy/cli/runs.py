"""The commands `predict` and `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visdeploy.cli.console import progress, stderr, stdout, table
from visdeploy.cli.models import BundlePath, Device, Key, Tf32, Threads
from visdeploy.cli.outputs import FormatOptions, Overwrite, check_outputs, parse_options
from visdeploy.cli.signals import deferring
from visdeploy.errors import ConfigError, DataError
from visdeploy.outputs import Output, free_path
from visdeploy.selection import REST, Selection
from visdeploy.space import fewest_frames, least_of_pngs, least_of_video

if TYPE_CHECKING:
    from visdeploy.partial import PartialFolder
    from visdeploy.predictor import VISPredictor
    from visdeploy.results import VideoResult
    from visdeploy.video import Source
    from visdeploy.video.source import OnError


class OnDamage(str, Enum):
    """Responses to damage in a source; the values are those of the command line."""

    ERROR, SKIP, STOP_HERE = "error", "skip", "stop-here"


_ON_ERROR: dict[OnDamage, OnError] = {OnDamage.ERROR: "raise", OnDamage.SKIP: "skip", OnDamage.STOP_HERE: "stop"}

Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="ytvis, jf, hota, clear, identity or trackmap; repeatable; default: by data set."),
]
VideoList = Annotated[
    Path | None, typer.Option("--videos", help="List of the names of the videos to take, one a line (ImageSets).")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (predict, evaluate):
        app.command()(command)


def predict(
    bundle: BundlePath,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Video file, folder of images, glob, URL, or camera index.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Result file or folder.")] = None,
    format: Annotated[
        str | None, typer.Option(help="ytvis, coco, davis, mots or parquet; default: by the ending of --out.")
    ] = None,
    option: FormatOptions = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Also write a video (.mp4) with these tracks; without --threshold, those from 0.25 up."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    tf32: Tf32 = False,
    key: Key = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            "--min-score",
            metavar="[CLASS=]SCORE",
            help="Omit tracks below this score, of one class or of all others; repeatable; default: keep all.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="Keep the tracks of these classes; repeatable; default: all."),
    ] = None,
    start: Annotated[int, typer.Option(help="First frame to process, counted from 0.", min=0)] = 0,
    step: Annotated[int, typer.Option(help="Process every STEP-th frame.", min=1)] = 1,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many processed frames.", min=1)] = None,
    on_damage: Annotated[
        OnDamage,
        typer.Option(help="For missing or damaged frames: fail, pass over them, or use the frames before them."),
    ] = OnDamage.ERROR,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run whose progress is in OUT.partial.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Detect, segment and track the objects of a video.

    If the run is interrupted, OUT.partial contains its progress.
    """
    from visdeploy.predictor import VISPredictor
    from visdeploy.video import is_live, is_repeatable, local_files, open_source

    if overlay is not None and not is_repeatable(source):
        raise ConfigError(
            "cannot draw an overlay of a live source, whose frames cannot be read again",
            hint="Record it to a file first, or leave out --overlay.",
        )
    partial = _partial(source, out or overlay, resume=resume, overwrite=overwrite)
    options = parse_options(option)
    limits = _thresholds(threshold)

    def check(opened: Source | None) -> None:
        outputs = _outputs(out, format, options, overlay, opened)
        inputs = (*local_files(source), bundle, *(() if key is None else (key,)))
        check_outputs(outputs, inputs, overwrite=overwrite)
        if partial is not None:
            partial.check(outputs)

    frames: dict[str, Any] = {"start": start, "step": step, "max_frames": max_frames, "on_error": _ON_ERROR[on_damage]}
    opened = None
    if is_live(source):
        check(None)
    else:
        opened = open_source(source, **frames)
        check(opened)
    predictor = VISPredictor(bundle, device=device, threads=threads, tf32=tf32, key=key)
    if opened is None:
        opened = open_source(source, **frames)
        check(opened)
    choice: dict[str, Any] = {"threshold": limits, "classes": _class_names(classes, predictor.classes)}
    Selection.of(predictor.classes, **choice)  # raises an error before a progress bar is shown
    with partial or nullcontext():
        video = _track(predictor, opened, choice, partial)
        _print_tracks(video)
        if out is not None:
            stdout.print(f"wrote {_save(video, out, format, options)}", highlight=False)
        if overlay is not None:
            style = {} if limits is None else {"min_score": 0}
            stdout.print(f"wrote {video.render(overlay, source=opened, **style)}", highlight=False)
        if partial is not None:
            partial.remove()


def _thresholds(texts: Sequence[str] | None) -> dict[str, float] | None:
    """Return the thresholds of options such as `0.4` and `person=0.6`, by class name; None without an option."""
    found: dict[str, float] = {}
    for text in texts or ():
        name, equals, score = text.rpartition("=")
        name = name.strip() if equals else REST
        if name in found:
            raise ConfigError("--threshold", seen=f"{text!r} after another one", expected="one for each class")
        try:
            found[name] = float(score)
        except ValueError:
            raise ConfigError("--threshold", seen=repr(text), expected="a number, or CLASS=NUMBER") from None
    return found or None


def _class_names(texts: Sequence[str] | None, known: Sequence[str]) -> list[str] | None:
    """Return the class names of options, each one name or several between commas; None without an option."""
    names = [name for text in texts or () for name in ([text] if text in known else map(str.strip, text.split(",")))]
    return names or None


def _partial(source: str, output: Path | None, *, resume: bool, overwrite: bool) -> PartialFolder | None:
    """Return the folder for the progress of a run; None if there is no output, or the source cannot be read again."""
    from visdeploy.partial import PartialFolder
    from visdeploy.video import is_repeatable

    if output is not None and is_repeatable(source):
        return PartialFolder(output, resume=resume, overwrite=overwrite)
    if resume:
        raise ConfigError(
            "cannot resume",
            seen="no output" if output is None else "a live source",
            expected="a source that can be read again, and --out or --overlay",
        )
    return None


def _outputs(
    out: Path | None, format: str | None, options: Mapping[str, Any], overlay: Path | None, source: Source | None
) -> list[Output]:
    """Return the outputs of `predict`, after checking their endings and the format.

    Args:
        out: Result file or folder.
        format: Its format.
        options: Options of the format.
        overlay: Video file.
        source: The video; None if it is not open yet.
    """
    from visdeploy.formats import planned_outputs
    from visdeploy.video import check_ending

    if options and out is None:
        raise ConfigError("--option is for a result file", seen="no --out", hint="Add --out, or leave out --option.")
    frames = 0 if source is None else fewest_frames(source)
    names = () if source is None else (source.name,)
    found = [] if out is None else planned_outputs(names, out, format=format, options=options)
    found = [replace(each, least=least_of_pngs(frames)) if each.folder else each for each in found]
    if overlay is not None:
        check_ending(overlay)
        size = (0, 0) if source is None else (source.height or 0, source.width or 0)
        found.append(Output(overlay, least=least_of_video(frames, *size)))
    return found


def _track(
    predictor: VISPredictor, source: Source, choice: dict[str, Any], partial: PartialFolder | None
) -> VideoResult:
    """Return the tracks of a video, and show a progress bar meanwhile.

    Args:
        predictor: The predictor.
        source: The opened video.
        choice: `threshold` and `classes` of the predictor.
        partial: Folder for the progress, if it is kept.
    """
    from visdeploy.partial import PartialStream

    def note() -> None:
        stderr.print("stopping after this frame; interrupt again to stop at once")

    keeping = nullcontext(lambda: None) if partial is None else deferring(note)
    with progress() as bar, keeping as stop_if_told:
        task = bar.add_task(source.name, total=None, note="")
        started = time.perf_counter()

        def advance(done: int, expected: int | None) -> None:
            rate = done / max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=done, total=expected, note=f"{rate:.1f} fps")
            stop_if_told()

        kept = None if partial is None else PartialStream(partial)
        return predictor(source, on_frame=advance, partial=kept, **choice)


def _print_tracks(video: VideoResult) -> None:
    """Print the tracks with the highest scores."""
    rows = [
        (t.track_id, video.classes[t.label], f"{t.score:.3f}", len(t.masks), f"{t.frames[0]}-{t.frames[-1]}")
        for t in sorted(video.tracks, key=lambda t: -t.score)
        if t.masks
    ]
    shown = rows[:20]
    title = f"{video.name}: {len(rows)} tracks in {video.num_frames} frames, source {video.verdict}"
    stdout.print(table(title, ("track", "class", "score", "frames", "span"), shown))
    if len(rows) > len(shown):
        stderr.print(f"{len(rows) - len(shown)} more tracks not shown; use --threshold to omit tracks with low scores")


def _save(video: VideoResult, out: Path, format: str | None, options: Mapping[str, Any] | None = None) -> Path:
    """Save a result. If its format cannot represent it, save it as YouTube-VIS beside `out` and raise the error.

    Whether a format can represent a result, for example its number of tracks, is only known at the end.
    """
    try:
        return video.save(out, format=format, **(options or {}))
    except DataError as error:
        kept = free_path(out.with_name(f"{out.name}.json"))
        video.save(kept, format="ytvis")
        raise DataError(
            error.what, seen=error.seen, expected=error.expected, hint=f"The result was written to {kept} instead."
        ) from error


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="YouTube-VIS result file or folder of them; DAVIS folder; MOTS text."),
    ],
    ground_truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH", help="YouTube-VIS annotation file; folder of DAVIS annotations; MOTS text or folder."
        ),
    ],
    metric: Metrics = None,
    numbering: Annotated[
        str | None, typer.Option(help="kitti or motschallenge: numbers of the frames in MOTS text; default: kitti.")
    ] = None,
    videos: VideoList = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse odd entries instead of counting them.")] = False,
) -> None:
    """Evaluate results against annotations: AP and AR, J&F, HOTA, sMOTSA."""
    from visdeploy.evaluation import evaluate as run
    from visdeploy.protocol.datasets import read_names

    names = None if videos is None else read_names(videos)
    metrics = tuple(metric) if metric else None
    report = run(predictions, ground_truth, metrics=metrics, numbering=numbering, strict=strict, videos=names)
    title = f"{predictions.name} against {ground_truth.name}"
    stdout.print(table(title, ("metric", "name", "value"), report.table()))
