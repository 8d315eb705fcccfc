"""Images of many kinds, animations, and folders of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.campaigns.media_files import Case, append, cut, patched, scene

SIZE = (32, 24)
BASE = scene(3, *SIZE)
GREY = BASE[:, :, 0]
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
"""What a viewer does with stored pixels, by the value of the EXIF tag Orientation."""


def pillow(path: Path, image: Image.Image, **options: Any) -> Path:
    """Write an image."""
    image.save(path, **options)
    return path


def turned(path: Path, tag: int) -> Path:
    """Write an image with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = tag
    return pillow(path, Image.fromarray(BASE), exif=exif)


def deep(path: Path, image: np.ndarray) -> Path:
    """Write an image of 16 bits by OpenCV."""
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def several(path: Path, count: int = 6, **options: Any) -> Path:
    """Write an animation, or pages."""
    first, *rest = [Image.fromarray(scene(n, *SIZE)) for n in range(count)]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def folder(path: Path, *, ending: str = "png", broken: Sequence[int] = (), shorter: Sequence[int] = ()) -> Path:
    """Write images 0 to 11 without leading zeros, a hidden file and a text; some are damaged."""
    path.mkdir()
    for number in range(12):
        file = path / f"f{number}.{ending}"
        Image.fromarray(scene(number, *SIZE)).save(file)
        data = file.read_bytes()
        if number in broken or number in shorter:
            file.write_bytes(b"no image" if number in broken else data[: len(data) // 2])
    (path / ".hidden.png").write_bytes(b"hidden")
    (path / "notes.txt").write_text("notes")
    return path


def pages(*numbers: int) -> list[np.ndarray]:
    """Return the scenes of these numbers."""
    return [scene(number, *SIZE) for number in numbers]


def palette() -> Image.Image:
    """Return an image of a palette, one of whose colours is transparent."""
    image = Image.fromarray(BASE).quantize(16)
    image.info["transparency"] = 3
    return image


def decoded(image: Image.Image, **options: Any) -> np.ndarray:
    """Return the RGB pixels of an image after it was written as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


def still(name: str, kind: str, image: Image.Image, wanted: np.ndarray, **options: Any) -> Case:
    """Return the case of a single image."""
    return Case(name, kind, partial(pillow, image=image, **options), images=[wanted], times=[0.0], loose=0.0)


RGB, LA = Image.fromarray(BASE), Image.merge("LA", [Image.fromarray(GREY)] * 2)
COLOURS = np.asarray(palette().convert("RGB"))
CMYK, BITS = RGB.convert("CMYK"), GREY > 100
GREY3 = np.dstack([GREY] * 3)
WIDE = GREY.astype(np.uint16) * 257
FLOAT = Image.fromarray(BASE[:, :, 0].astype(np.float32))

STILL_CASES = [
    *(Case(f"exif{tag}.png", f"PNG, EXIF orientation {tag}", partial(turned, tag=tag), images=[turn(BASE)], loose=0.0)
      for tag, turn in TURNS.items()),
    *(Case(f"exif{tag}.jpg", f"JPEG, EXIF orientation {tag}", partial(turned, tag=tag),
           images=[TURNS[tag](decoded(RGB))], loose=0.0) for tag in (5, 6)),
    Case("grey16.png", "PNG, 16 bits, grey", partial(deep, image=WIDE), images=[GREY3], loose=0.0),
    Case("rgb16.png", "PNG, 16 bits, RGB", partial(deep, image=BASE.astype(np.uint16) * 257), images=[BASE], loose=0.0),
    Case("grey16.tif", "TIFF, 16 bits, grey", partial(deep, image=WIDE), images=[GREY3], loose=0.0),
    Case("float.tif", "TIFF, floating point: refused", partial(pillow, image=FLOAT), "damaged", images=[]),
    still("palette.png", "PNG, palette with transparency", palette(), COLOURS, transparency=3),
    still("cmyk.jpg", "JPEG, CMYK", CMYK, decoded(CMYK, quality=95), quality=95),
    still("la.png", "PNG, grey with alpha", LA, GREY3),
    still("rgba.png", "PNG, RGB with alpha", Image.merge("RGBA", [*RGB.split(), Image.fromarray(GREY)]), BASE),
    still("bits.png", "PNG, 1 bit", Image.fromarray(BITS), np.dstack([BITS * 255] * 3)),
    still("bits.pbm", "PBM, 1 bit", Image.fromarray(BITS), np.dstack([BITS * 255] * 3)),
    still("image.bmp", "BMP", RGB, BASE),
    still("image.ppm", "PPM", RGB, BASE),
    still("image.jp2", "JPEG 2000, lossless", RGB, BASE, irreversible=False),
    still("image.webp", "WebP, lossless", RGB, BASE, lossless=True),
    still("image.jfif", "JPEG with another ending", RGB, decoded(RGB), format="JPEG"),
    Case("cut.jpg", "JPEG, cut", cut(partial(pillow, image=RGB, quality=95), 0.5), "damaged", images=[]),
]  # fmt: skip
ANIMATION_CASES = [
    Case("anim.webp", "WebP, 6 frames, variable rate",
         partial(several, lossless=True, duration=[100, 300, 100, 100, 50, 50]), images=pages(*range(6)),
         times=[0, 0.1, 0.4, 0.5, 0.6, 0.65], loose=0.0),
    Case("anim.png", "APNG, 6 frames", partial(several, duration=200), images=pages(*range(6)),
         times=[n / 5 for n in range(6)], loose=0.0),
    Case("stack.tif", "TIFF, 6 pages", several, images=pages(*range(6)), times=[0.0] * 6, loose=0.0),
    Case("anim_cut.png", "APNG, cut", cut(partial(several, duration=200), 0.5), "damaged", images=pages(0, 1),
         times=[0, 0.2], loose=0.0),
    Case("anim_cut.webp", "WebP, cut", cut(partial(several, lossless=True), 0.6), "damaged", images=[]),
    Case("stack_cut.tif", "TIFF, cut", cut(several, 0.6), "damaged", images=pages(0, 1, 2), times=[0.0] * 3, loose=0.0),
    *(Case(f"dispose{n}.gif", f"GIF, disposal {n}", partial(several, duration=120, disposal=n)) for n in (0, 1, 2)),
    Case("still.gif", "GIF, 6 images without times: one frame", several),
    Case("vary.gif", "GIF, variable rate", partial(several, duration=[100, 50, 300, 100, 100, 100])),
    Case("tail.gif", "GIF, bytes behind it", patched(partial(several, duration=120), append(b"tail"))),
    Case("cut.gif", "GIF, cut", cut(partial(several, duration=120), 0.7), "damaged"),
    Case("no_end.gif", "GIF, without its last byte", cut(partial(several, duration=120), less=1), "unknown"),
]  # fmt: skip
KEPT = (0, 1, 3, 4, 5, 6, 8, 9, 10, 11)
FOLDER_CASES = [
    Case("folder", "12 images", folder, images=pages(*range(12)), times=[0.0] * 12, loose=0.0),
    Case("folder_step", "every third, 10 per second", folder, options={"step": 3, "fps": 10},
         images=pages(0, 3, 6, 9), times=[0, 0.3, 0.6, 0.9], loose=0.0),
    Case("folder_limit", "the first 5, 4 per second", folder, options={"max_frames": 5, "fps": 4},
         images=pages(*range(5)), times=[n / 4 for n in range(5)], loose=0.0),
    Case("folder_skip", "two are no images", partial(folder, broken=(2, 7)), "damaged", options={"fps": 10},
         images=pages(*KEPT), times=[number / 10 for number in KEPT], loose=0.0),
    Case("folder_stop", "the third is cut, stop there", partial(folder, shorter=(2,)), "damaged",
         options={"on_error": "stop"}, images=pages(0, 1), times=[0.0] * 2, loose=0.0),
    Case("folder_skip_step", "every second, one of them cut", partial(folder, shorter=(4,)), "damaged",
         options={"step": 2, "max_frames": 4}, images=pages(0, 2, 6, 8), times=[0.0] * 4, loose=0.0),
]  # fmt: skip
IMAGE_CASES = [*STILL_CASES, *ANIMATION_CASES, *FOLDER_CASES]
