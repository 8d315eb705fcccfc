"""Overlays: what is drawn where, stable colours, and videos that match their source."""

import itertools
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.support import rectangle
from tests.visdeploy.formats.results import walkers
from tests.visdeploy.video.clips import make_clip, number_of, picture
from visdeploy import formats
from visdeploy.errors import ConfigError, DataError, SourceError
from visdeploy.masks import Mask
from visdeploy.render import contact_sheet, draw, fonts, render_video, track_color
from visdeploy.render.colors import text_color
from visdeploy.render.fonts import font_for
from visdeploy.render.tags import place_tag, render_text
from visdeploy.results import FrameResult, Instance, Track, VideoResult
from visdeploy.video import Frame, VideoWriter, open_source

PLAIN: dict[str, Any] = {"contours": False, "labels": False, "ids": False, "scores": False}


def frame_with(*instances: Instance, height: int = 120, width: int = 160) -> FrameResult:
    return FrameResult(0, 0.0, height, width, instances, ("person", "zürich tram"))


def test_masks_are_blended_exactly() -> None:
    image = np.full((120, 160, 3), 100, np.uint8)
    mask = rectangle(120, 160, 20, 30, 40, 50)
    before = image.copy()
    drawn = draw(image, frame_with(Instance(5, 0, 0.9, mask)), alpha=0.5, **PLAIN)
    np.testing.assert_array_equal(image, before)
    inside = mask.decode()
    np.testing.assert_array_equal(drawn[~inside], image[~inside])
    assert np.abs(drawn[inside].astype(int) - (50 + np.array(track_color(5)) / 2)).max() <= 1


def test_holes_stay_open_and_small_objects_lie_on_top() -> None:
    ring = np.zeros((120, 160), bool)
    ring[10:110, 10:150] = True
    ring[40:80, 40:120] = False
    inner = rectangle(120, 160, 15, 15, 10, 10)
    image = np.full((120, 160, 3), 100, np.uint8)
    drawn = draw(
        image, frame_with(Instance(1, 0, 0.9, Mask.encode(ring)), Instance(2, 0, 0.8, inner)), alpha=1, **PLAIN
    )
    np.testing.assert_array_equal(drawn[60, 60], [100] * 3)
    assert tuple(drawn[100, 100]) == track_color(1)
    assert tuple(drawn[20, 20]) == track_color(2)


def test_contours_follow_the_mask() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    mask = rectangle(120, 160, 20, 30, 40, 50)
    drawn = draw(image, frame_with(Instance(5, 0, 0.9, mask)), alpha=0, labels=False, ids=False, scores=False)
    marked = drawn.any(axis=2)
    assert marked[20, 30:80].all()
    assert marked[20:60, 30].all()
    assert not marked[23:57, 33:77].any()
    assert not marked[:17].any()


def test_tags_are_written_above_and_can_be_left_out() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    frame = frame_with(Instance(5, 1, 0.9, rectangle(120, 160, 60, 30, 40, 50)))
    drawn = draw(image, frame, alpha=0, contours=False)
    rows = np.flatnonzero(drawn.any(axis=(1, 2)))
    assert rows.max() == 59
    assert 10 < len(rows) < 24
    assert (drawn[rows][:, 31:60] == track_color(5)).all(axis=2).mean() > 0.5
    assert not draw(image, frame, alpha=0, **PLAIN | {"contours": False}).any()
    narrow = draw(image, frame, alpha=0, contours=False, labels=False, scores=False)
    assert np.count_nonzero(narrow.any(axis=(0, 2))) < np.count_nonzero(drawn.any(axis=(0, 2)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 200), (48, 64), (1080, 1920)])
def test_any_frame_size(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    full = Mask.encode(np.ones((height, width)))
    drawn = draw(image, frame_with(Instance(5, 1, 0.9, full), Instance(6, 7, 0.8, full), height=height, width=width))
    assert drawn.shape == image.shape
    assert drawn.all(axis=2).any()


def test_low_scores_and_empty_masks_are_left_out() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    empty = Instance(1, 0, 0.9, Mask.encode(np.zeros((120, 160))))
    weak = Instance(2, 0, 0.2, rectangle(120, 160, 20, 30, 40, 50))
    assert not draw(image, frame_with(empty, weak), min_score=0.5).any()
    assert not draw(image, frame_with(empty, weak)).any()
    assert draw(image, frame_with(empty, weak), min_score=0.2).any()
    assert not draw(image, frame_with()).any()


def test_own_colors() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    mask = rectangle(120, 160, 20, 30, 40, 50)
    drawn = draw(image, frame_with(Instance(5, 0, 0.9, mask)), alpha=1, color=lambda _: (1, 2, 3), **PLAIN)
    assert tuple(drawn[30, 40]) == (1, 2, 3)


def test_colours_are_stable_and_apart() -> None:
    assert [track_color(i) for i in (0, 1, 2, 1000)] == [track_color(i) for i in (0, 1, 2, 1000)]
    assert track_color(0) == (129, 188, 254)
    assert track_color(1) == (127, 136, 14)
    first = [np.array(track_color(i), int) for i in range(12)]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(first, 2)) >= 50
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(first)) >= 90
    assert len({track_color(i) for i in range(200)}) > 190


@pytest.mark.parametrize("track_id", range(40))
def test_text_is_readable_on_every_colour(track_id: int) -> None:
    def luminance(color: tuple[int, int, int]) -> float:
        linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    back = track_color(track_id)
    high, low = sorted((luminance(back), luminance(text_color(back))), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_text_beyond_ascii_has_ink() -> None:
    assert render_text("zürich", 20).max() == 255
    assert not np.array_equal(render_text("zürich", 20), render_text("zurich", 20))


def test_text_that_the_usual_font_lacks_is_drawn_with_one_of_the_system(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fonts._search.cache_clear()
    monkeypatch.setattr(fonts, "system_fonts", lambda: ())
    render_text.cache_clear()
    boxes = [render_text(text, 20) for text in ("#1 人 90%", "#2 人 80%", "#1 ? 90%")]
    assert np.array_equal(boxes[0], boxes[2])
    assert caplog.text.count("no font of this system has all of the characters '人'") == 1
    monkeypatch.undo()
    fonts._search.cache_clear()
    render_text.cache_clear()
    if not (found := [f for f in fonts.system_fonts() if f.name == "DejaVuSans.ttf"]):
        pytest.skip("the font for this test is not installed")
    monkeypatch.setattr(fonts, "system_fonts", lambda: (Path(__file__), *found))
    assert font_for("#1 собака 90%", 20)[1] == "#1 собака 90%"
    assert not np.array_equal(render_text("#1 собака 90%", 20), render_text("#1 ?????? 90%", 20))


def test_text_of_tags_is_one_short_line() -> None:
    assert np.array_equal(render_text("#1 a\n b\x00", 20), render_text("#1 a b", 20))
    long = render_text(f"#1 {'x' * 500} 90%", 20)
    assert np.array_equal(long, render_text(f"#1 {'x' * 27}…xxxxx 90%", 20))


def test_tags_make_way_for_each_other() -> None:
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(4):
        taken.append(place_tag((30, 30, 60, 60), (10, 40), (120, 160), taken))
    assert len(set(taken)) == 4
    for a, b in itertools.combinations(taken, 2):
        assert a[3] <= b[1] or b[3] <= a[1]
    assert place_tag((150, 0, 160, 10), (10, 40), (120, 160), []) == (120, 10, 160, 20)
    assert place_tag((0, 0, 3, 3), (10, 40), (4, 5), []) == (0, 0, 5, 4)


@pytest.mark.parametrize(
    ("image", "style", "error", "message"),
    [
        (np.zeros((120, 159, 3), np.uint8), {}, DataError, "does not match .*159"),
        (np.zeros((120, 160, 3)), {}, DataError, "float64"),
        (np.zeros((120, 160, 3), np.uint8), {"colour": 1}, ConfigError, "unknown style 'colour' .*alpha, contours"),
        (np.zeros((120, 160, 3), np.uint8), {"alpha": 2}, ConfigError, "alpha"),
        (np.zeros((120, 160, 3), np.uint8), {"font_size": 0}, ConfigError, "font_size"),
    ],
)
def test_bad_drawing(image: np.ndarray, style: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw(image, frame_with(), **style)


def clip_result(path: Path | None, frames: int = 12, **changes: Any) -> VideoResult:
    mask = rectangle(48, 64, 2, 2, 8, 8)
    facts: dict[str, Any] = {"fps": 25.0, "timestamps": tuple(i / 25 for i in range(frames))}
    facts.update(changes)
    tracks = [Track(1, 0, 0.9, dict.fromkeys(range(frames), mask))]
    return VideoResult("clip", 48, 64, frames, ("dog",), tracks, source=str(path) if path else None, **facts)


def test_video_keeps_frames_and_rate(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", rate=Fraction(30000, 1001))
    stamps = tuple(f.timestamp for f in open_source(source))
    counts: list[int] = []
    result = clip_result(source, fps=30000 / 1001, timestamps=stamps)
    path = result.render(tmp_path / "out.mp4", quality=4, progress=counts.append, labels=False)
    frames = list(open_source(path))
    assert [number_of(f.image) for f in frames] == list(range(12)) == [c - 1 for c in counts]
    assert [f.timestamp for f in frames] == pytest.approx(stamps, abs=1e-4)
    assert np.abs(frames[5].image[30, 10].astype(int) - picture(5, 64, 48)[30, 10]).max() <= 6
    assert np.abs(frames[5].image[7, 6].astype(int) - picture(5, 64, 48)[7, 6]).max() > 20


def test_video_of_variable_rate_and_of_every_third_frame(tmp_path: Path) -> None:
    stamps = [0, 0.04, 0.05, 0.3, 0.34, 1.0, 1.7, 1.71]
    source = make_clip(tmp_path / "in.mp4", frames=8, stamps=stamps)
    seen = [f.timestamp for f in open_source(source, step=3)]
    result = clip_result(source, 3, timestamps=tuple(seen))
    frames = list(open_source(render_video(result, tmp_path / "out.mp4", quality=4)))
    assert [number_of(f.image) for f in frames] == [0, 3, 6]
    assert [f.timestamp for f in frames] == pytest.approx([0, 0.3, 1.7], abs=1e-3)
    faster = list(open_source(render_video(result, tmp_path / "out.mp4", fps=10)))
    assert [f.timestamp for f in faster] == pytest.approx([0, 0.1, 0.2], abs=1e-3)


def test_video_from_arrays_without_a_clock(tmp_path: Path) -> None:
    result = clip_result(None, 5, fps=0.0, timestamps=())
    images = [picture(i, 64, 48) for i in range(5)]
    frames = list(open_source(render_video(result, tmp_path / "o.mp4", source=images, quality=4)))
    assert [number_of(f.image) for f in frames] == list(range(5))
    assert frames[1].timestamp == pytest.approx(0.04, abs=1e-3)
    result = clip_result(None, 3, timestamps=(0.0, 0.0, 0.0))
    stamped = [Frame(i, 0.0, picture(i, 64, 48)) for i in range(3)]
    frames = list(open_source(render_video(result, tmp_path / "o.mp4", source=stamped, quality=4)))
    assert [number_of(f.image) for f in frames] == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"source": None}, {}, DataError, "does not name its source"),
        ({"source": "gone.mp4"}, {}, SourceError, "does not exist"),
        ({"num_frames": 20, "timestamps": ()}, {}, DataError, "shorter than its result .*12 matching frames.*20"),
        ({"num_frames": 0, "tracks": []}, {}, DataError, "no frames"),
        ({"height": 50, "tracks": []}, {}, DataError, "frames of 48x64; expected: 50x64"),
        ({}, {"colour": 3}, ConfigError, "unknown style"),
        ({}, {"fps": -1.0}, ConfigError, "fps"),
    ],
)
def test_bad_videos(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    result = clip_result(make_clip(tmp_path / "in.mp4"))
    for name, value in changes.items():
        setattr(result, name, value)
    with pytest.raises(error, match=message):
        render_video(result, tmp_path / "out.mp4", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_contact_sheet(tmp_path: Path) -> None:
    images = [np.full((30, 40, 3), 50 * i, np.uint8) for i in range(1, 6)]
    path = contact_sheet(images, tmp_path / "s.png", 3, cell_width=80, captions=["one", "two"])
    page = np.array(Image.open(path))
    assert page.shape[1] == 3 * 86 + 6
    assert [int(page[36, 46 + 86 * i, 0]) for i in range(3)] == [50, 100, 150]
    tall = np.full((60, 10, 3), 99, np.uint8)
    page = np.array(Image.open(contact_sheet([images[0], tall], tmp_path / "s.png", 2, cell_width=80)))
    assert page[36, 6 + 86 + 40, 0] == 99
    assert page[36, 6 + 86 + 5, 0] == 24
    with pytest.raises(DataError, match="no images"):
        contact_sheet([], tmp_path / "t.png")
    with pytest.raises(DataError, match="float64"):
        contact_sheet([np.zeros((3, 3, 3))], tmp_path / "t.png")
    with pytest.raises(ConfigError, match="0 columns"):
        contact_sheet(images, tmp_path / "t.png", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["s.png"]


def test_walkers_render(tmp_path: Path) -> None:
    """Overlapping tracks, an absent one, timestamps at 29.97."""
    result = walkers(height=96, width=128)
    images = [np.full((96, 128, 3), 80, np.uint8)] * 6
    frames = list(open_source(render_video(result, tmp_path / "o.mp4", source=images)))
    assert len(frames) == 6
    assert [f.timestamp for f in frames] == pytest.approx(result.timestamps, abs=1e-3)


def test_an_overlay_keeps_the_pixel_aspect(tmp_path: Path) -> None:
    result = walkers()
    with VideoWriter(tmp_path / "in.mp4", result.width, result.height, 25, pixel_aspect=Fraction(2)) as writer:
        for _ in range(result.num_frames):
            writer.write(np.zeros((result.height, result.width, 3), np.uint8))
    render_video(result, tmp_path / "out.mp4", source=tmp_path / "in.mp4")
    assert open_source(tmp_path / "out.mp4").pixel_aspect == 2


def test_the_pixels_of_a_turned_video_are_turned(tmp_path: Path) -> None:
    result = walkers()
    with av.open(str(tmp_path / "in.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = result.height, result.width, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_rotation(90, False, False)
        for _ in range(result.num_frames):
            frame = av.VideoFrame.from_ndarray(np.zeros((result.width, result.height, 3), np.uint8))
            file.mux(stream.encode(frame.reformat(format="yuv420p")))
        file.mux(stream.encode(None))
    render_video(result, tmp_path / "out.mp4", source=tmp_path / "in.mp4")
    assert open_source(tmp_path / "out.mp4").pixel_aspect == Fraction(1, 2)


def test_an_overlay_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = walkers()
    monkeypatch.chdir(tmp_path)
    frames = np.zeros((result.num_frames, result.height, result.width, 3), np.uint8)
    render_video(result, "12:30:05.mp4", source=frames)
    assert len(list(open_source("12:30:05.mp4"))) == result.num_frames


def test_a_live_source_is_not_read_again(tmp_path: Path) -> None:
    result = VideoResult("cam", 48, 64, 2, (), source="rtsp://localhost:9/cam")
    with pytest.raises(DataError, match=r"cannot read the frames of 'cam' again .seen: a live source"):
        result.render(tmp_path / "o.mp4")


def test_a_wrong_count_in_a_header_selects_no_other_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of exactly as many frames as the result is taken for its processed frames; the header's count is not."""
    images = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)]
    with VideoWriter(tmp_path / "v.mp4", 64, 48, 10) as writer:
        for image in images:
            writer.write(image)
    monkeypatch.setattr("visdeploy.video.files.claimed_frames", lambda stream: 5)
    result = VideoResult("v", 48, 64, 5, (), positions=range(1, 10, 2))
    result.render(tmp_path / "o.mp4", source=tmp_path / "v.mp4")
    shown = [round(frame.image.mean() / 20) for frame in open_source(tmp_path / "o.mp4")]
    assert shown == [1, 3, 5, 7, 9]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text on other systems")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    with VideoWriter(path, 64, 48, 10) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    source = open_source(path)
    assert (source.name, source.path) == ("caf\ufffd", str(tmp_path / "caf\ufffd.mp4"))
    result = VideoResult(path.stem, 48, 64, 1, ("cat",), source=str(path))
    result.tracks.append(Track(0, 0, 0.9, {0: Mask.encode(np.ones((48, 64), bool))}))
    for name in ("r.json", "r.txt", "r.parquet"):
        assert formats.load(result.save(tmp_path / name))[0].name == "caf\ufffd"
    assert result.render(tmp_path / "o.mp4").is_file()
