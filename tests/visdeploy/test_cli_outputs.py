"""Outputs of commands: checked before anything is read, never an input, replaced only with --overwrite."""

import json
import os
import signal
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import exit_code, rectangle, square_video
from visdeploy import formats
from visdeploy.atomic import replacing_file
from visdeploy.cli import console, runs, signals
from visdeploy.errors import DataError, OutputError
from visdeploy.results import Track, VideoResult

NO_BUNDLE = "no.vis"  # outputs are checked before the bundle is read, so none is needed here


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a video, a folder of frames, and existing results."""
    monkeypatch.chdir(tmp_path)
    square_video(tmp_path / "in.mp4", 2)
    os.link("in.mp4", "link.mp4")
    for name in ("data/frames", "masks/in"):
        Path(name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(f"{name}/{number}.png")
    for name in ("old.json", "old.tracks.json", "in.vis", "x.pth"):
        Path(name).write_text("[]")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        ("predict no.vis in.mp4 --overlay in.mp4", "OutputError", "would replace the input in.mp4"),
        ("predict no.vis in.mp4 --overlay link.mp4 --overwrite", "OutputError", "would replace the input in.mp4"),
        ("predict no.vis in.mp4 --out in.mp4 --format ytvis --overwrite", "OutputError", "would replace the input"),
        ("predict no.vis data/frames --out data --overwrite", "OutputError", "would replace the input"),
        ("predict no.vis data/frames/*.png --out data --overwrite", "OutputError", "would replace the input"),
        ("predict no.vis data/frames --out data/frames", "OutputError", "would lie among the images of the input"),
        ("predict no.vis in.mp4 --out r --overlay r.partial/o.mp4", "OutputError", "would replace each other"),
        ("predict no.vis rtsp://localhost:9/a --out r.json --overlay o.mp4", "ConfigError", "overlay of a live source"),
        ("predict no.vis 7 --overlay o.mp4", "ConfigError", "overlay of a live source"),
        ("predict no.vis in.mp4 --out r.xyz", "ConfigError", "cannot tell the format of r.xyz"),
        ("predict no.vis in.mp4 --out r.json --format nope", "ConfigError", "unknown result format"),
        ("predict no.vis in.mp4 --out r.json --overlay o.gif", "ConfigError", "cannot write video o.gif"),
        ("predict no.vis in.mp4 --out old.json/r.json", "OutputError", "A part of the path is a file"),
        ("predict no.vis in.mp4 --out data --format ytvis", "OutputError", "exists already"),
        ("predict no.vis in.mp4 --out data --format ytvis --overwrite", "OutputError", "seen: a folder"),
        ("predict no.vis in.mp4 --out r.mp4 --format ytvis --overlay r.mp4", "OutputError", "replace each other"),
        ("predict no.vis in.mp4 --out old.json", "OutputError", "old.json exists already. Pass --overwrite"),
        ("predict no.vis in.mp4 --out old.txt", "OutputError", "old.tracks.json exists already. Pass --overwrite"),
        ("predict no.vis in.mp4 --out masks", "OutputError", "masks/in exists already. Pass --overwrite"),
        ("predict no.vis http://localhost:9/a.mp4 --out r.xyz", "ConfigError", "cannot tell the format"),
        ("predict no.vis in.mp4 --out r.txt --option numbering=x", "ConfigError", "unknown numbering of MOTS"),
        ("predict no.vis in.mp4 --out r.txt --option numbering", "ConfigError", "malformed --option"),
        ("predict no.vis in.mp4 --out r.txt --option a=1 --option a=2", "ConfigError", "each key once"),
        ("predict no.vis in.mp4 --out r.txt --option filter_tracks=7", "ConfigError", "filter_tracks has a wrong"),
        ("predict no.vis in.mp4 --out r.json --option numbering=kitti", "ConfigError", "option 'numbering'"),
        ("predict no.vis in.mp4 --option numbering=kitti", "ConfigError", "--option is for a result file"),
        ("convert old.safetensors", "OutputError", "would replace the input old.safetensors"),
        ("convert x.pth --out y.pth", "ConfigError", "cannot write y.pth"),
        ("convert x.pth --out old.safetensors", "OutputError", "exists already. Pass --overwrite"),
        ("export x.pth --out in.vis", "OutputError", "in.vis exists already. Pass --overwrite"),
        ("export x.pth --out old.json/x.vis", "OutputError", "A part of the path is a file"),
    ],
)
def test_outputs_are_checked_first(folder: Path, words: str, error: str, part: str, capsys) -> None:
    Path("old.safetensors").write_text("")
    before = contents(folder)
    assert exit_code(*words.split()) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"{error}: ")
    assert part in printed
    assert printed.count("\n") == 1
    assert contents(folder) == before


def test_overwrite_passes_the_checks(folder: Path, capsys) -> None:
    for words in ("--out old.json", "--out masks", "--out old.txt --overlay new/o.mp4"):
        assert exit_code("predict", NO_BUNDLE, "in.mp4", *words.split(), "--overwrite") == 1
        assert capsys.readouterr().err.startswith("BundleError: ")
    assert not Path("new").exists()


def test_a_result_that_the_format_cannot_represent_is_kept(tmp_path: Path) -> None:
    """DAVIS has at most 254 objects, which is known only at the end."""
    mask = rectangle(8, 8, 0, 0, 2, 2)
    video = VideoResult("v", 8, 8, 1, ("cat",), [Track(i, 0, 0.5, {0: mask}) for i in range(300)])
    with pytest.raises(DataError, match=r"too many tracks .* was written to .*masks\.json instead"):
        runs._save(video, tmp_path / "masks", None)
    assert len(formats.load(tmp_path / "masks.json")[0].tracks) == 300


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_remove_temporary_files(tmp_path: Path, number: signal.Signals) -> None:
    def run() -> None:
        with signals.terminating(), replacing_file(tmp_path / "o.mp4"):
            os.kill(os.getpid(), number)
            signal.pause()

    before = signal.signal(number, signal.SIG_DFL)  # a process under nohup ignores SIGHUP, and so do its tests
    try:
        with pytest.raises(SystemExit) as leave:
            run()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert leave.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.terminating():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_results_do_not_replace_their_source(folder: Path) -> None:
    before = contents(folder)
    for source, path, options in (
        ("in.mp4", "link.mp4", {"format": "ytvis"}),
        ("data/frames", "data", {}),
        ("data/frames/*.png", "data", {}),
    ):
        video = VideoResult("frames", 8, 8, 2, ("cat",), source=source)
        with pytest.raises(OutputError, match="would replace the input"):
            video.save(path, **options)
    with pytest.raises(OutputError, match="would replace the input"):
        VideoResult("in", 96, 160, 2, ("cat",), source="in.mp4").render("link.mp4")
    assert contents(folder) == before


def test_mots_text_and_metadata_belong_together(tmp_path: Path) -> None:
    def result(label: int, x: int) -> VideoResult:
        mask = rectangle(8, 8, 0, x, 2, 2)
        return VideoResult("v", 8, 8, 1, ("person", "dog"), [Track(0, label, 0.5, {0: mask})])

    path, side = tmp_path / "r.txt", tmp_path / "r.tracks.json"
    result(0, 0).save(path)
    old = path.read_text()
    result(0, 4).save(path)
    path.write_text(old)  # as if a process had been killed between the two files
    with pytest.raises(DataError, match=r"r\.txt and r\.tracks\.json do not belong together"):
        formats.load(path)
    content = json.loads(side.read_text())
    del content["masks_sha256"]  # as written by earlier versions
    side.write_text(json.dumps(content))
    assert len(formats.load(path)) == 1


def test_a_mots_pair_is_not_written_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def result(score: float) -> VideoResult:
        return VideoResult("v", 8, 8, 1, ("dog",), [Track(0, 0, score, {0: rectangle(8, 8, 0, 0, 2, 2)})])

    path = tmp_path / "r.txt"
    result(0.9).save(path)
    write = Path.write_text

    def fail(self: Path, text: str, **options: str) -> int:
        if self.suffix == ".txt":
            raise OSError(28, "No space left on device")
        return write(self, text, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OutputError, match="No space left"):
        result(0.1).save(path)
    assert formats.load(path)[0].tracks[0].score == 0.9
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text on other systems")
def test_names_that_a_terminal_cannot_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="ascii"))
    assert exit_code("recipes", "--help") == 0
    console.stdout.print("wrote", os.fsdecode(b"caf\xe9"), "日")
    sys.stdout.flush()
    assert written.getvalue().endswith(b"wrote caf\\udce9 \\u65e5\n")
