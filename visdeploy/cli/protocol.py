"""The command `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from visdeploy.cli.console import progress, stdout, table
from visdeploy.cli.models import BundlePath, Device, Key, Tf32, Threads
from visdeploy.cli.outputs import Overwrite
from visdeploy.cli.runs import Metrics, VideoList
from visdeploy.errors import ConfigError

if TYPE_CHECKING:
    from visdeploy.protocol import Benchmark
    from visdeploy.protocol.datasets import Kind


def register(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command()(benchmark)


def benchmark(
    bundle: BundlePath,
    annotations: Annotated[
        Path,
        typer.Argument(
            metavar="ANNOTATIONS",
            help="YouTube-VIS file (2019, 2021, OVIS); folder of DAVIS annotations or of MOTS text; list of names of "
            "videos; folder of folders of images.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="results.json, or folder for DAVIS and MOTS.")],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the video folders (DIR/VIDEO/00000.jpg), or one with them in its JPEGImages; default: the "
            "folder of the annotation file."
        ),
    ] = None,
    videos: VideoList = None,
    archive: Annotated[
        Path | None, typer.Option("--zip", help="Archive for the evaluation server: results.json, PNGs or texts.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="davis or mots, where the annotations do not decide it.")] = None,
    numbering: Annotated[
        str | None,
        typer.Option(help="kitti or motschallenge: numbers of the frames in MOTS images and text; default: kitti."),
    ] = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=CATEGORY", help="Category of a class with another name; repeatable."),
    ] = None,
    max_tracks: Annotated[
        int | None, typer.Option(help="Keep so many tracks of a video; default: 20 for DAVIS, else all.", min=1)
    ] = None,
    filter_tracks: Annotated[
        bool, typer.Option("--filter-tracks", help="Filter masks and tracks by the rules of KITTI MOTS.")
    ] = False,
    metric: Metrics = None,
    device: Device = "auto",
    threads: Threads = None,
    tf32: Tf32 = False,
    key: Key = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run whose progress is in OUT.partial.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Run a whole data set, write its results as the evaluation servers expect them, and print scores and speed.

    If the run is interrupted, OUT.partial contains the videos that are done.
    """
    from visdeploy.protocol import benchmark as run

    pairs = _pairs(class_map or [])
    with progress() as bar:
        task = bar.add_task(annotations.name, total=None, note="")

        def advance(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, note=name)

        done = run(
            bundle,
            annotations,
            out,
            images=images,
            videos=videos,
            zip=archive,
            format=cast("Kind | None", format),
            numbering=numbering,
            class_map=pairs,
            max_tracks=max_tracks,
            filter_tracks=filter_tracks,
            metrics=tuple(metric) if metric else None,
            device=device,
            threads=threads,
            tf32=tf32,
            key=key,
            resume=resume,
            overwrite=overwrite,
            progress=advance,
        )
    _print(done, f"{bundle.name} on {annotations.name}")


def _pairs(texts: list[str]) -> dict[str, str]:
    wrong = next((text for text in texts if "=" not in text), None)
    if wrong is not None:
        raise ConfigError("--class-map", seen=wrong, expected="CLASS=CATEGORY, such as person=pedestrian")
    parted = (text.partition("=") for text in texts)
    return {name.strip(): category.strip() for name, _, category in parted}


def _print(done: Benchmark, title: str) -> None:
    if done.scores is None:
        stdout.print("the data set has no annotations, therefore there are no scores")
    else:
        stdout.print(table(title, ("metric", "name", "value"), done.scores.table()))
    stdout.print(
        f"{done.videos} videos, {done.frames} frames from {done.images} in {done.seconds:.1f} s on {done.device}: "
        f"{done.fps:.2f} FPS, {done.fps_without_reading:.2f} FPS without reading images",
        highlight=False,
    )
    for path in (done.out, done.zip):
        if path is not None:
            stdout.print(f"wrote {path}", highlight=False)
