"""The commands `predict` and `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visdeploy.cli.console import progress, stderr, stdout, table
from visdeploy.cli.models import BundlePath, Device, Tf32, Threads
from visdeploy.cli.outputs import Overwrite, check_outputs
from visdeploy.errors import DataError
from visdeploy.outputs import Output, free_path

if TYPE_CHECKING:
    from visdeploy.predictor import VISPredictor
    from visdeploy.results import VideoResult
    from visdeploy.video import Source
    from visdeploy.video.source import OnError


class OnDamage(str, Enum):
    """Responses to damage in a source; the values are those of the command line."""

    ERROR, SKIP, STOP_HERE = "error", "skip", "stop-here"


_ON_ERROR: dict[OnDamage, OnError] = {OnDamage.ERROR: "raise", OnDamage.SKIP: "skip", OnDamage.STOP_HERE: "stop"}


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
        typer.Option(help="Also write a video (.mp4) with the tracks whose score is at least --min-score, else 0.25."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    tf32: Tf32 = False,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many frames.", min=1)] = None,
    on_damage: Annotated[
        OnDamage,
        typer.Option(help="For missing or damaged frames: fail, pass over them, or use the frames before them."),
    ] = OnDamage.ERROR,
    min_score: Annotated[
        float | None, typer.Option(help="Omit tracks below this score; default: keep all.", min=0, max=1)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Detect, segment and track the objects of a video."""
    from visdeploy.predictor import VISPredictor
    from visdeploy.video import is_live, local_files, open_source

    def check(names: Sequence[str]) -> None:
        inputs = (*local_files(source), bundle)
        check_outputs(_outputs(out, format, overlay, names), inputs, overwrite=overwrite)

    limits: dict[str, Any] = {"max_frames": max_frames, "on_error": _ON_ERROR[on_damage]}
    opened = None
    if is_live(source):
        check(())
    else:
        opened = open_source(source, **limits)
        check((opened.name,))
    predictor = VISPredictor(bundle, device=device, threads=threads, tf32=tf32)
    if opened is None:
        opened = open_source(source, **limits)
        check((opened.name,))
    video = _track(predictor, opened, Path(source).name or source)
    video.tracks = [track for track in video.tracks if track.score >= (min_score or 0)]
    _print_tracks(video)
    if out is not None:
        stdout.print(f"wrote {_save(video, out, format)}", highlight=False)
    if overlay is not None:
        style = {} if min_score is None else {"min_score": min_score}
        stdout.print(f"wrote {video.render(overlay, **style)}", highlight=False)


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


def _track(predictor: VISPredictor, source: Source, title: str) -> VideoResult:
    """Return the tracks of a video, and show a progress bar meanwhile."""
    with progress() as bar:
        task = bar.add_task(title, total=None, note="")
        started = time.perf_counter()

        def advance(done: int, expected: int | None) -> None:
            rate = done / max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=done, total=expected, note=f"{rate:.1f} fps")

        return predictor(source, on_frame=advance)


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
        stderr.print(f"{len(rows) - len(shown)} more tracks not shown; use --min-score to omit tracks with low scores")


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
