"""The commands `predict` and `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visdeploy.cli.console import progress, stderr, stdout, table
from visdeploy.cli.models import BundlePath, Device, Tf32, Threads
from visdeploy.cli.outputs import Overwrite, check_outputs
from visdeploy.errors import ConfigError, DataError
from visdeploy.outputs import Output, free_path
from visdeploy.selection import REST, Selection

if TYPE_CHECKING:
    from visdeploy.predictor import VISPredictor
    from visdeploy.results import VideoResult
    from visdeploy.video import Source


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (predict, evaluate):
        app.command()(command)


def predict(
    bundle: BundlePath,
    source: Annotated[str, typer.Argument(help="Video file, folder of images, glob, URL, or camera index.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Result file or folder.")] = None,
    format: Annotated[
        str | None, typer.Option(help="ytvis, coco, davis, mots or parquet; default: by the ending of --out.")
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Also write a video (.mp4) with these tracks; without --threshold, those from 0.25 up."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    tf32: Tf32 = False,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            "--min-score",
            metavar="[CLASS=]SCORE",
            help="Omit tracks below this score, of one class or of all others; repeat it; default: keep all.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Keep the tracks of these classes; default: all.")
    ] = None,
    start: Annotated[int, typer.Option(help="First frame to process, counted from 0.", min=0)] = 0,
    step: Annotated[int, typer.Option(help="Process every STEP-th frame.", min=1)] = 1,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many processed frames.", min=1)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Detect, segment and track the objects of a video."""
    from visdeploy.predictor import VISPredictor
    from visdeploy.video import is_live, local_files, open_source

    def check(names: Sequence[str]) -> None:
        inputs = (*local_files(source), bundle)
        check_outputs(_outputs(out, format, overlay, names), inputs, overwrite=overwrite)

    limits = _thresholds(threshold)
    frames: dict[str, Any] = {"start": start, "step": step, "max_frames": max_frames}
    opened = None
    if is_live(source):
        check(())
    else:
        opened = open_source(source, **frames)
        check((opened.name,))
    predictor = VISPredictor(bundle, device=device, threads=threads, tf32=tf32)
    if opened is None:
        opened = open_source(source, **frames)
        check((opened.name,))
    choice: dict[str, Any] = {"threshold": limits, "classes": _class_names(classes, predictor.classes)}
    Selection.of(predictor.classes, **choice)  # raises an error before a progress bar is shown
    video = _track(predictor, opened, Path(source).name or source, choice)
    _print_tracks(video)
    if out is not None:
        stdout.print(f"wrote {_save(video, out, format)}", highlight=False)
    if overlay is not None:
        style = {} if limits is None else {"min_score": 0}
        stdout.print(f"wrote {video.render(overlay, **style)}", highlight=False)


def _thresholds(texts: Sequence[str] | None) -> dict[str, float] | None:
    """Return the thresholds of options such as `0.4` and `person=0.6`, by class name; None without an option."""
    found: dict[str, float] = {}
    for text in texts or ():
        name, equals, score = text.rpartition("=")
        try:
            found[name if equals else REST] = float(score)
        except ValueError:
            raise ConfigError("--threshold", seen=repr(text), expected="a number, or CLASS=NUMBER") from None
    return found or None


def _class_names(texts: Sequence[str] | None, known: Sequence[str]) -> list[str] | None:
    """Return the class names of options, each one name or several between commas; None without an option."""
    names = [name for text in texts or () for name in ([text] if text in known else map(str.strip, text.split(",")))]
    return names or None


def _outputs(out: Path | None, format: str | None, overlay: Path | None, names: Sequence[str]) -> list[Output]:
    """Return the outputs of `predict`, after checking their endings and the format.

    Args:
        out: Result file or folder.
        format: Its format.
        overlay: Video file.
        names: Name of the video, or nothing if it is not known yet.
    """
    from visdeploy.formats import planned_outputs
    from visdeploy.video import check_ending

    found = [] if out is None else planned_outputs(names, out, format=format)
    if overlay is not None:
        check_ending(overlay)
        found.append(Output(overlay))
    return found


def _track(predictor: VISPredictor, source: Source, title: str, choice: dict[str, Any]) -> VideoResult:
    """Return the tracks of a video, and show a progress bar meanwhile.

    Args:
        predictor: The predictor.
        source: The opened video.
        title: Text beside the bar.
        choice: `threshold` and `classes` of the predictor.
    """
    with progress() as bar:
        task = bar.add_task(title, total=None, note="")
        started = time.perf_counter()

        def advance(done: int, expected: int | None) -> None:
            rate = done / max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=done, total=expected, note=f"{rate:.1f} fps")

        return predictor(source, on_frame=advance, **choice)


def _print_tracks(video: VideoResult) -> None:
    """Print the tracks with the highest scores."""
    rows = [
        (t.track_id, video.classes[t.label], f"{t.score:.3f}", len(t.masks), f"{t.frames[0]}-{t.frames[-1]}")
        for t in sorted(video.tracks, key=lambda t: -t.score)
        if t.masks
    ]
    shown = rows[:20]
    title = f"{video.name}: {len(rows)} tracks in {video.num_frames} frames"
    stdout.print(table(title, ("track", "class", "score", "frames", "span"), shown))
    if len(rows) > len(shown):
        stderr.print(f"{len(rows) - len(shown)} more tracks not shown; use --threshold to omit tracks with low scores")


def _save(video: VideoResult, out: Path, format: str | None) -> Path:
    """Save a result. If its format cannot represent it, save it as YouTube-VIS beside `out` and raise the error.

    Whether a format can represent a result, for example its number of tracks, is only known at the end.
    """
    try:
        return video.save(out, format=format)
    except DataError as error:
        kept = free_path(out.with_name(f"{out.name}.json"))
        video.save(kept, format="ytvis")
        raise DataError(
            error.what, seen=error.seen, expected=error.expected, hint=f"The result was written to {kept} instead."
        ) from error


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="YouTube-VIS result file or folder of them; DAVIS folder; MOTS text.")
    ],
    ground_truth: Annotated[
        Path, typer.Argument(help="YouTube-VIS annotation file; folder of DAVIS annotations; MOTS text or folder.")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="ytvis, jf, hota, clear, identity, trackmap; repeat for several; default: by data set."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse odd entries instead of counting them.")] = False,
) -> None:
    """Evaluate results against annotations: AP and AR, J&F, HOTA, sMOTSA."""
    from visdeploy.evaluation import evaluate as run

    report = run(predictions, ground_truth, metrics=tuple(metric) if metric else None, strict=strict)
    title = f"{predictions.name} against {ground_truth.name}"
    stdout.print(table(title, ("metric", "name", "value"), report.table()))
