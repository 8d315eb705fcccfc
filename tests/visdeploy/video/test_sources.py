"""Sources that are no video file: images, globs, arrays, iterators, cameras."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import visdeploy.video.camera as camera
from visdeploy.errors import SourceError
from visdeploy.video import Frame, open_source
from visdeploy.video.images import size_as_shown
from visdeploy.video.pixels import orient


def grey(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write images 1, 2, 10 (natural and alphabetical order differ), a hidden one and a text file."""
    place = tmp_path / "street"
    place.mkdir()
    for value in (10, 2, 1):
        Image.fromarray(grey(value)).save(place / f"f{value}.png")
    Image.fromarray(grey(99)).save(place / ".hidden.png")
    (place / "notes.txt").write_text("no image")
    return place


def values(source: Any, **options: Any) -> list[int]:
    return [int(f.image[0, 0, 0]) for f in open_source(source, **options)]


def test_folder_glob_and_list_in_natural_order(folder: Path) -> None:
    assert values(folder) == values(str(folder / "*.png")) == values(str(folder / "**/f*")) == [1, 2, 10]
    assert values([folder / "f10.png", str(folder / "f1.png")]) == [10, 1]
    assert values(folder / "f2.png") == [2]
    source = open_source(folder)
    assert (source.name, source.kind, source.expected_frames, source.fps) == ("street", "images", 3, 0.0)
    assert open_source(str(folder / "*.png")).name == "street"
    assert open_source(folder, name="mine").name == "mine"


def test_images_get_time_from_fps(folder: Path) -> None:
    assert [f.timestamp for f in open_source(folder, fps=10)] == pytest.approx([0, 0.1, 0.2])
    assert [f.timestamp for f in open_source(folder, fps=10, step=2)] == pytest.approx([0, 0.2])
    assert [f.timestamp for f in open_source(folder)] == [0, 0, 0]


def test_image_modes(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 65535 // 5, np.uint16)).save(tmp_path / "1.png")
    Image.new("L", (4, 4), 51).save(tmp_path / "2.png")
    Image.new("RGBA", (4, 4), (51, 51, 51, 7)).save(tmp_path / "3.png")
    Image.new("P", (4, 4), 0).save(tmp_path / "4.png")
    assert [tuple(f.image[0, 0]) for f in open_source(tmp_path)][:3] == [(51, 51, 51)] * 3


def test_exif_rotation(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([np.arange(48, dtype=np.uint8).reshape(6, 8)] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    image.save(tmp_path / "a.png", exif=exif)
    (frame,) = open_source(tmp_path / "a.png")
    np.testing.assert_array_equal(frame.image, np.rot90(np.asarray(image), -1))


def test_unreadable_image(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (folder / "f2.png").read_bytes()
    (folder / "f2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cannot read image .*f2\.png"):
        values(folder)
    assert values(folder, on_error="stop") == [1]
    assert values(folder, on_error="skip") == [1, 10]
    assert "2 of 3 expected frames" in caplog.text


def test_images_of_different_sizes(folder: Path) -> None:
    Image.fromarray(grey(2, 7, 9)).save(folder / "f2.png")
    with pytest.raises(SourceError, match=r"size changes at frame 1 \(seen: 9x7; expected: 8x6"):
        values(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "none", "does not exist"),
        (lambda f: f.parent / "empty", "contains no images .*0 other files"),
        (lambda f: str(f / "*.jpg"), r"no image matches .*\(seen: nothing"),
        (lambda f: str(f / "*.txt"), r"no image matches .*\(seen: 1 other files"),
        (lambda f: f / "notes.txt", "is not a video|cannot open"),
        (lambda f: [f / "gone.png"], "cannot read image"),
        (lambda f: None, "NoneType"),
        (lambda f: 3.5, "float"),
        (lambda f: b"raw", "bytes"),
        (lambda f: True, "bool"),
        (lambda f: 97, "cannot open camera 97"),
        (lambda f: "97", "cannot open camera 97"),
    ],
)
def test_bad_sources(folder: Path, make: Any, message: str) -> None:
    (folder.parent / "empty").mkdir()
    with pytest.raises(SourceError, match=message):
        values(make(folder))


def test_arrays_and_iterators() -> None:
    stack = np.stack([grey(v) for v in range(5)])

    def generate() -> Iterator[np.ndarray]:
        yield from stack

    assert values(stack) == values(list(stack)) == values(generate()) == values(iter(stack)) == [0, 1, 2, 3, 4]
    assert values(generate(), step=2) == [0, 2, 4]
    assert open_source(stack).expected_frames == 5
    assert open_source(generate()).expected_frames is None
    stamped = [Frame(7, 1.5, grey(3)), Frame(8, 2.5, grey(4))]
    assert [(f.index, f.timestamp) for f in open_source(stamped)] == [(0, 1.5), (1, 2.5)]
    assert values(stack[:, ::-1, ::-2]) == [0, 1, 2, 3, 4]
    assert all(f.image.flags.c_contiguous for f in open_source(stack[:, ::-1, ::-2]))


def test_limit_takes_no_more_than_it_needs() -> None:
    taken = []

    def generate() -> Iterator[np.ndarray]:
        for value in range(9):
            taken.append(value)
            yield grey(value)

    assert values(generate(), max_frames=3) == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_an_open_source_is_taken_as_it_is() -> None:
    source = open_source([grey(1)])
    assert open_source(source) is source


def test_errors_of_an_iterator_pass_through() -> None:
    def generate() -> Iterator[np.ndarray]:
        yield grey(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        values(generate(), on_error="skip")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (grey(1).astype(np.float32), r"frame 1 has the wrong type \(seen: float32.*255"),
        (grey(1).astype(np.int64), r"seen: int64.*astype\(uint8\)"),
        (grey(1)[..., 0], r"\(6, 8\).*Repeat the grey channel"),
        (grey(1).transpose(2, 0, 1), r"\(3, 6, 8\).*Channels go last"),
        (np.zeros((6, 8, 4), np.uint8), "alpha"),
        (np.zeros((0, 8, 3), np.uint8), "wrong shape"),
        ([[1, 2, 3]], r"frame 1 is not an array \(seen: list"),
        (grey(1, 9, 9), "size changes at frame 1"),
    ],
)
def test_bad_arrays(frame: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        values(iter([grey(0), frame]))
    assert values(iter([grey(0), frame]), on_error="stop") == [0]
    assert values(iter([grey(0), frame, grey(5)]), on_error="skip") == [0, 5]


@pytest.mark.parametrize("shape", [(6, 8, 3), (6, 8), (2, 2, 6, 8, 3)])
def test_single_array_of_wrong_rank(shape: tuple[int, ...]) -> None:
    with pytest.raises(SourceError, match="frames, height, width, 3"):
        open_source(np.zeros(shape, np.uint8))


class FakeCapture:
    """Replacement for OpenCV's capture: three BGR frames, then no more, as if the camera was disconnected."""

    released = 0

    def __init__(self, index: int) -> None:
        self.left = 3

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((4, 4, 3), (1, 2, 3), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        FakeCapture.released += 1


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.VideoCapture", FakeCapture)
    source = open_source(0, max_frames=2)
    assert isinstance(source, camera.CameraSource)
    assert [tuple(f.image[0, 0]) for f in source] == [(3, 2, 1)] * 2
    assert FakeCapture.released == 1
    with pytest.raises(SourceError, match="no frame after 3 frames"):
        list(open_source(0))
    stamps = [f.timestamp for f in open_source(0, on_error="stop")]
    assert stamps[0] == 0
    assert stamps == sorted(stamps)


def test_orient_covers_the_eight_positions() -> None:
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    for a, b, c, d in [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)] + [
        (0, b, c, 0) for b in (1, -1) for c in (1, -1)
    ]:
        turned = orient(image, (a, b, c, d))
        corner = np.array([(a * x + c * y, b * x + d * y) for x in (0, 2) for y in (0, 1)]).min(axis=0)
        for x in range(3):
            for y in range(2):
                u, v = np.array((a * x + c * y, b * x + d * y)) - corner
                np.testing.assert_array_equal(turned[v, u], image[y, x])


def test_a_negative_camera_is_refused() -> None:
    with pytest.raises(SourceError, match=r"cannot open a camera .*seen: index -1"):
        open_source(-1)


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (32, 24), (20 * i, 0, 0)) for i in range(count)]


@pytest.mark.parametrize(
    ("name", "options", "times"),
    [
        ("a.webp", {"lossless": True, "duration": [100, 300, 100, 100]}, [0, 0.1, 0.4, 0.5]),
        ("a.png", {"duration": 200}, [0, 0.2, 0.4, 0.6]),
        ("a.tif", {}, [0, 0, 0, 0]),
    ],
)
def test_an_image_file_of_several_pictures_is_a_video(
    tmp_path: Path, name: str, options: dict[str, Any], times: list[float]
) -> None:
    first, *rest = pictures(4)
    first.save(tmp_path / name, save_all=True, append_images=rest, **options)
    source = open_source(tmp_path / name)
    frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 20, 40, 60]
    assert [frame.timestamp for frame in frames] == pytest.approx(times)
    assert source.report().expected_frames == 4
    assert [frame.timestamp for frame in open_source(tmp_path / name, fps=2)] == [0, 0.5, 1, 1.5]
    Image.new("RGB", (32, 24)).save(tmp_path / "b.png")
    with pytest.raises(SourceError, match=r"contains several pictures .*seen: 4"):
        list(open_source(tmp_path))


def test_previews_in_a_photo_are_no_frames(tmp_path: Path) -> None:
    first, *rest = pictures(2)
    first.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=rest)
    assert len(list(open_source(tmp_path / "photo.jpg"))) == 1
    assert len(list(open_source(tmp_path))) == 1


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPEG", "apng", "dib", "pnm", "tga", "avif", "j2c", "jpf"])
def test_all_endings_of_readable_formats(tmp_path: Path, ending: str) -> None:
    formats = {"jfif": "JPEG", "jpe": "JPEG", "apng": "PNG", "dib": "BMP", "pnm": "PPM", "j2c": "JPEG2000"}
    formats["jpf"] = "JPEG2000"
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this build of Pillow has no AVIF")
    Image.new("RGB", (32, 24)).save(tmp_path / f"0.{ending}", format=formats.get(ending, ending))
    assert len(list(open_source(tmp_path))) == len(list(open_source(tmp_path / f"0.{ending}"))) == 1


@pytest.mark.parametrize("pages", [1, 3])
def test_floating_point_pixels_are_refused(tmp_path: Path, pages: int) -> None:
    first, *rest = [Image.fromarray(np.full((24, 32), 0.5, np.float32)) for _ in range(pages)]
    first.save(tmp_path / "depth.tif", save_all=True, append_images=rest)
    with pytest.raises(SourceError, match="floating-point pixels"):
        list(open_source(tmp_path / "depth.tif"))


def test_files_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("0.png", "1.png"):
        Image.new("RGB", (32, 24)).save(tmp_path / name)
    for name in ("notes.txt", "clip.heic", ".DS_Store"):
        (tmp_path / name).touch()
    assert len(list(open_source(tmp_path))) == 2
    assert "2 images are read, 2 other files are left out, such as clip.heic" in caplog.text


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "RGB", "P"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_of_every_mode_are_turned(tmp_path: Path, mode: str, orientation: int, compression: Any) -> None:
    stored = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10) * 4
    image = {
        "L": lambda: Image.fromarray(stored),
        "I;16": lambda: Image.fromarray(stored.astype(np.uint16) * 257),
        "CMYK": lambda: Image.fromarray(np.repeat(stored[..., None], 3, 2)).convert("CMYK"),
        "RGB": lambda: Image.fromarray(np.repeat(stored[..., None], 3, 2)),
        "P": lambda: Image.fromarray(np.repeat(stored[..., None], 3, 2)).quantize(256),
    }[mode]()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tif", exif=exif, compression=compression)
    shown = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1],
             stored.T, np.rot90(stored, -1), stored[::-1, ::-1].T, np.rot90(stored)][orientation - 1]  # fmt: skip
    (frame,) = open_source(tmp_path / "a.tif")
    assert (frame.image == shown[..., None]).all()
    assert size_as_shown(tmp_path / "a.tif") == shown.shape


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_the_size_of_a_turned_image(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(grey(5)).save(tmp_path / name, exif=exif)
    assert size_as_shown(tmp_path / name) == (8, 6)


def test_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 300, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(SourceError, match="32-bit pixels of unknown range"):
        list(open_source(tmp_path / "a.tif"))


def test_a_file_that_is_no_image_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"cannot read image \S+a.png \(seen: no image, or of a format that"):
        list(open_source(tmp_path / "a.png"))
