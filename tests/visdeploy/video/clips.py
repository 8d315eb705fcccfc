"""Small videos of every kind the tests need, made with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

LEFT, TOP_RIGHT = (220, 40, 40), (30, 200, 60)


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Return an image: left half red, upper right green, and a lower right quarter whose grey is the frame number."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = LEFT
    image[: height // 2, width // 2 :] = TOP_RIGHT
    image[height // 2 :, width // 2 :] = 16 + 7 * number
    return image


def number_of(image: np.ndarray) -> int:
    """Return the number of the frame that an upright image shows."""
    return round((float(image[image.shape[0] * 3 // 4, image.shape[1] * 3 // 4].mean()) - 16) / 7)


def make_clip(
    path: Path,
    *,
    frames: int = 12,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    stamps: list[float] | None = None,
    rate: Fraction | int = 25,
    turn: tuple[float, bool, bool] | None = None,
    space: tuple[str, int] | None = None,
    full: bool = False,
    container: dict[str, str] | None = None,
    audio: bool = False,
) -> Path:
    """Write a clip of `picture`s; `space` is x264's name of the colour matrix and swscale's number for it."""
    name, number = space or ("smpte170m", 5)
    options = {"crf": "4", "colorspace": name, "color_range": "pc" if full else "tv"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = Fraction(1, 1000) if stamps else 1 / Fraction(rate)
        if turn:
            stream.set_display_rotation(*turn)
        sound = file.add_stream("aac", rate=16000) if audio else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, width, height))
            frame = frame.reformat(format=pixels, dst_colorspace=number, dst_color_range=2 if full else 1)
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(stamps[i] * 1000) if stamps else i
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if sound is not None:
            write_sound(file, sound)
    return path


def write_sound(file: av.container.OutputContainer, stream: av.AudioStream) -> None:
    for i in range(4):
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts = 16000, i * 1024
        file.mux(stream.encode(samples))
    file.mux(stream.encode(None))


def make_sound(path: Path) -> Path:
    """Write a file with an audio track only."""
    with av.open(str(path), "w") as file:
        write_sound(file, file.add_stream("aac", rate=16000))
    return path


def make_size_change(path: Path, folder: Path) -> Path:
    """Write an MPEG transport stream of two streams, 6 frames of 64x48 and then frames of 32x32."""
    first = make_clip(folder / "first.ts", frames=6, codec="mpeg2video")
    second = make_clip(folder / "second.ts", frames=6, codec="mpeg2video", width=32, height=32)
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path
