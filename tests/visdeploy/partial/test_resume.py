"""Interrupted runs of a video: their progress is kept, and the resumed run equals an uninterrupted one exactly."""

import json
import os
import shutil
import signal

import pytest
from PIL import Image

from tests.support import exit_code
from tests.visdeploy.clip_graph import make_clip_bundle, moving
from tests.visdeploy.step_graph import clip, make_bundle
from visdeploy import ConfigError, DataError, OutputError, SourceError, StreamError, VISPredictor
from visdeploy.partial import PartialFolder, PartialStream
from visdeploy.streaming import parts
from visdeploy.streaming.pipeline import Pipeline

FRAMES = 14


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return VISPredictor(make_clip_bundle(tmp_path_factory.mktemp("clip") / "clip.vis"), device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working directory, with a folder of frames."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(clip(FRAMES)):
        Image.fromarray(frame).save(tmp_path / "in" / f"{number:05d}.png")
    return tmp_path


class StopError(Exception):
    """An interruption between two frames."""


def stop_at(frame):
    def on_frame(done, _):
        if done == frame:
            raise StopError

    return on_frame


def keeping(predictor, frames, *, seconds=1e9, on_frame=None, **options):
    """Run a predictor on frames, with its progress in `out.json.partial`."""
    with PartialFolder(options.pop("out"), resume=True) as kept:
        video = predictor(frames, on_frame=on_frame, partial=PartialStream(kept, seconds=seconds), **options)
        kept.remove()
        return video


@pytest.mark.parametrize("seconds", [0, 1e9], ids=["at every frame", "at the end"])
@pytest.mark.parametrize("kind", ["online", "clips"])
def test_a_run_interrupted_again_and_again_equals_one_at_a_time(predictor, clips, tmp_path, kind, seconds):
    model, frames = (predictor, clip(FRAMES)) if kind == "online" else (clips, moving(31))
    out = tmp_path / "out.json"
    for frame in (1, 7, len(frames)):
        with pytest.raises(StopError):
            keeping(model, frames, out=out, seconds=seconds, on_frame=stop_at(frame), name="v")
        assert (tmp_path / "out.json.partial").is_dir()
    assert keeping(model, frames, out=out, seconds=seconds, name="v") == model(frames, name="v")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_keep_the_progress_of_predict(bundle, folder, monkeypatch, capsys, caplog, number):
    """The signal comes while the graph runs; the state is saved after the frame."""
    words = ("predict", bundle.path, "in", "--device", "cpu", "--threads", 1)
    assert exit_code(*words, "--out", "whole.json") == 0
    ran, run = [], Pipeline.run

    def signalled(self, *arguments, **options):
        ran.append(1)
        if len(ran) == 5:
            os.kill(os.getpid(), number)
        return run(self, *arguments, **options)

    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        monkeypatch.setattr(Pipeline, "run", signalled)
        assert exit_code(*words, "--out", "out.json") != 0
    finally:
        signal.signal(number, before)
    assert len(ran) == 5
    assert not (folder / "out.json").exists()
    assert "out.json.partial contains the progress, and --resume continues it" in caplog.text
    assert exit_code(*words, "--out", "out.json") == 1
    assert "--resume to continue it, --overwrite to start anew" in capsys.readouterr().err
    assert (folder / "out.json.partial" / parts.STATE).exists(), "an existing one is left alone"
    assert exit_code(*words, "--out", "out.json", "--resume", "--overlay", "o.mp4") == 0
    assert len(ran) == FRAMES, "no frame is processed twice"
    assert (folder / "out.json").read_bytes() == (folder / "whole.json").read_bytes()
    assert not (folder / "out.json.partial").exists()


def test_overwrite_starts_anew(bundle, folder):
    words = ("predict", bundle.path, "in", "--out", "out.json", "--device", "cpu", "--max-frames")
    with pytest.raises(StopError):
        keeping(VISPredictor(bundle, device="cpu"), "in", out=folder / "out.json", on_frame=stop_at(3))
    assert exit_code(*words, 4, "--overwrite") == 0
    assert not (folder / "out.json.partial").exists()
    assert json.loads((folder / "out.json").read_text())[0]["video"]["num_frames"] == 4


def test_a_decoding_error_keeps_the_frames_before_it(predictor, folder):
    (folder / "in" / "00008.png").write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"00008\.png"):
        keeping(predictor, "in", out=folder / "out.json")
    whole = predictor("in", on_error="skip")
    seen = []
    found = keeping(predictor, "in", out=folder / "out.json", on_error="skip", on_frame=lambda *a: seen.append(a))
    assert found == whole
    assert whole.num_frames == FRAMES - 1


def test_a_repaired_source_is_continued(predictor, folder):
    good = (folder / "in" / "00008.png").read_bytes()
    whole = predictor("in")
    (folder / "in" / "00008.png").write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"00008\.png"):
        keeping(predictor, "in", out=folder / "out.json")
    (folder / "in" / "00008.png").write_bytes(good)
    assert keeping(predictor, "in", out=folder / "out.json") == whole


def test_progress_of_something_else_is_refused(predictor, folder, tmp_path):
    out = folder / "out.json"
    other = VISPredictor(make_bundle(tmp_path / "other.vis", variant="other"), device="cpu")
    with pytest.raises(StopError):
        keeping(predictor, "in", out=out, on_frame=stop_at(4), step=2)
    before = {p.name: p.read_bytes() for p in (folder / "out.json.partial").iterdir()}
    shutil.copytree("in", "short/in")
    for number in range(4, FRAMES):
        (folder / f"short/in/{number:05d}.png").unlink()
    with pytest.raises(SourceError, match="the source ended early"):
        keeping(predictor, "short/in", out=out, step=2)
    shutil.copytree("in", "changed/in")
    Image.fromarray(clip(1, seed=1)[0]).save("changed/in/00002.png")
    for model, source, options, part in (
        (other, "in", {"step": 2}, "another bundle"),
        (predictor, "changed/in", {"step": 2}, "another source"),
        (predictor, "in", {"step": 1}, "another selection of frames"),
        (predictor, "in", {"step": 2, "max_frames": 5}, "another selection of frames"),
    ):
        with pytest.raises(ConfigError, match=f"cannot resume .* made with {part}"):
            keeping(model, source, out=out, **options)
    assert {p.name: p.read_bytes() for p in (folder / "out.json.partial").iterdir()} == before
    shutil.copytree("in", "moved/in")
    assert keeping(predictor, "moved/in", out=out, step=2).tracks == predictor("in", step=2).tracks


def test_a_run_killed_while_it_saves_continues_from_the_state_before(predictor, folder):
    """The results are written before the state."""
    whole, kept = predictor("in"), folder / "out.json.partial"
    for frame in (4, 7):
        with pytest.raises(StopError):
            keeping(predictor, "in", out=folder / "out.json", on_frame=stop_at(frame))
        if frame == 4:
            state = (kept / parts.STATE).read_bytes()
    (kept / parts.STATE).write_bytes(state)
    assert sorted(p.name for p in kept.glob("results-*")) == ["results-000000000.npz", "results-000000004.npz"]
    for frame in (6, 9):
        with pytest.raises(StopError):
            keeping(predictor, "in", out=folder / "out.json", on_frame=stop_at(frame))
    assert keeping(predictor, "in", out=folder / "out.json") == whole


def test_damaged_progress_is_refused(predictor, folder):
    with pytest.raises(StopError):
        keeping(predictor, "in", out=folder / "out.json", on_frame=stop_at(4))
    (folder / "out.json.partial" / "results-000000000.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"the progress in .*out\.json\.partial is damaged .* --overwrite"):
        keeping(predictor, "in", out=folder / "out.json")


def test_a_folder_of_that_name_is_not_touched(predictor, folder):
    (folder / "out.json.partial").mkdir()
    (folder / "out.json.partial" / "mine").write_text("")
    with pytest.raises(OutputError, match="something else"):
        PartialFolder(folder / "out.json", overwrite=True).open({})


def test_two_runs_do_not_share_their_progress(predictor, folder):
    with pytest.raises(StopError):
        keeping(predictor, "in", out=folder / "out.json", on_frame=stop_at(4))
    with PartialFolder(folder / "out.json", resume=True) as first:
        PartialStream(first).open(predictor, _source("in"))
        with pytest.raises(OutputError, match="another process"):
            keeping(predictor, "in", out=folder / "out.json")


def _source(path):
    from visdeploy.video import open_source

    return open_source(path)


def test_an_interruption_within_a_frame_keeps_the_last_saved_state(predictor, folder, monkeypatch):
    """The state of the decoder is unknown then."""
    ran, run = [], Pipeline.run

    def interrupted(self, *arguments, **options):
        ran.append(1)
        if len(ran) == 6:
            raise KeyboardInterrupt
        return run(self, *arguments, **options)

    whole = predictor("in")
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keeping(predictor, "in", out=folder / "out.json")
        assert not (folder / "out.json.partial").exists()
        ran.clear()
        with pytest.raises(KeyboardInterrupt):
            keeping(predictor, "in", out=folder / "out.json", seconds=0)
    assert keeping(predictor, "in", out=folder / "out.json") == whole


def test_every_result_is_written_once(predictor, tmp_path):
    """The files of a long run together grow with its length, not with its square."""
    frames = [f for _ in range(4) for f in clip(FRAMES)]
    with pytest.raises(StopError):
        keeping(predictor, frames, out=tmp_path / "out.json", seconds=0, on_frame=stop_at(len(frames)))
    sizes = [p.stat().st_size for p in sorted((tmp_path / "out.json.partial").glob("results-*.npz"))]
    assert len(sizes) == len(frames)
    assert max(sizes) < 3 * min(sizes)


def test_progress_that_cannot_be_written_does_not_end_the_run(predictor, folder, monkeypatch, caplog):
    def full(*_):
        raise StreamError("the stream cannot be saved", seen="No space left on device")

    monkeypatch.setattr("visdeploy.streaming.stream.save_parts", full)
    assert keeping(predictor, "in", out=folder / "out.json", seconds=0) == predictor("in")
    assert "the progress is not kept" in caplog.text


@pytest.mark.parametrize(
    "words", ["in --resume", "rtsp://localhost:9/a --out r.json --resume", "7 --out r.json --resume"]
)
def test_what_cannot_be_resumed(folder, words, capsys):
    assert exit_code("predict", "no.vis", *words.split()) == 1
    assert "ConfigError: cannot resume" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a" * 250 + ".json", "é" * 125 + ".json"])
def test_outputs_with_the_longest_names(predictor, folder, name):
    with pytest.raises(StopError):
        keeping(predictor, "in", out=folder / name, seconds=0, on_frame=stop_at(5))
    (kept,) = folder.glob("*.partial")
    assert len(os.fsencode(kept.name)) <= 255
    assert PartialFolder(folder / name).path == kept != PartialFolder(folder / f"b{name[1:]}").path
