"""The commands `predict` and `evaluate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from visdeploy.cli.console import progress, stderr, stdout, table
from visdeploy.cli.models import BundlePath, Device, Tf32, Threads


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
    min_score: Annotated[
        float | None, typer.Option(help="Omit tracks below this score; default: keep all.", min=0, max=1)
    ] = None,
) -> None:
    """Detect, segment and track the objects of a video."""
    from visdeploy.predictor import VISPredictor

    predictor = VISPredictor(bundle, device=device, threads=threads, tf32=tf32)
    with progress() as bar:
        task = bar.add_task(Path(source).name or source, total=None, note="")
        started = time.perf_counter()

        def advance(done: int, expected: int | None) -> None:
            rate = done / max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=done, total=expected, note=f"{rate:.1f} fps")

        video = predictor(source, max_frames=max_frames, on_frame=advance)
    video.tracks = [track for track in video.tracks if track.score >= (min_score or 0)]
    rows = [
        (t.track_id, video.classes[t.label], f"{t.score:.3f}", len(t.masks), f"{t.frames[0]}-{t.frames[-1]}")
        for t in sorted(video.tracks, key=lambda t: -t.score)
        if t.masks
    ]
    shown = rows[:20]
    title = f"{video.name}: {len(rows)} tracks in {video.num_frames} frames"
    stdout.print(table(title, ("track", "class", "score", "frames", "span"), shown))
    if len(rows) > len(shown):
        stderr.print(f"{len(rows) - len(shown)} more tracks not shown; use --min-score to omit tracks with low scores")
    if out is not None:
        stdout.print(f"wrote {video.save(out, format=format)}", highlight=False)
    if overlay is not None:
        style = {} if min_score is None else {"min_score": min_score}
        stdout.print(f"wrote {video.render(overlay, **style)}", highlight=False)


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
