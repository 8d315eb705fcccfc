"""Media files of many kinds, made with PyAV, Pillow and NumPy; some are damaged on purpose."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FRAMES, RATE = 64, 48, 24, 25
Maker = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """File of the campaign.

    Attributes:
        name: File name, unique.
        kind: What is special about it.
        make: Function that writes the file or folder to a path, and returns the path to open.
        verdict: Verdict that is right.
        options: Options of `open_source`.
        times: Times of the frames; by default those of the reference decoder.
        images: RGB images by construction, instead of those of the reference decoder.
        loose: Largest mean difference of a frame; images of Pillow are equal.
    """

    name: str
    kind: str
    make: Maker
    verdict: str = "complete"
    options: dict[str, Any] = field(default_factory=dict)
    times: list[float] | None = None
    images: list[np.ndarray] | None = None
    loose: float = 3.0


def scene(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return an image with a gradient that turns with the frame and a bright square that moves."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([200 * x / width, 200 * y / height, np.full_like(x, 8 * (number % 24))], 2)
    left = (3 * number) % (width - 12)
    image[6:18, left : left + 12] = 240
    return image.astype(np.uint8)


def video(
    path: Path,
    codec: str = "libx264",
    *,
    pixels: str = "yuv420p",
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    stamps: list[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    turn: tuple[float, bool, bool] | None = None,
    aspect: Fraction | None = None,
    audio: str = "",
    packets: int = 14,
    bframes: int | None = None,
    gop: int = 12,
    images: list[np.ndarray] | None = None,
    form: str | None = None,
    transfer: int | None = None,
) -> Path:
    """Write a video; `stamps` are milliseconds; `audio` is `before` or `behind` the video stream, or empty.

    The sound has so many `packets` of 72 ms.
    """
    with av.open(str(path), "w", options=container or {}, format=form) as file:
        sound = file.add_stream("mp2", rate=16000) if audio == "before" else None
        stream: Any = file.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        context = stream.codec_context
        context.time_base, context.gop_size = Fraction(1, 1000) if stamps else Fraction(1, RATE), gop
        if bframes is not None:
            context.max_b_frames = bframes
        if aspect:
            context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(*turn)
        if transfer:
            context.color_trc, context.color_primaries, context.colorspace, context.color_range = transfer, 9, 9, 1
        sound = file.add_stream("mp2", rate=16000) if audio == "behind" else sound
        if sound is not None:
            _write_sound(file, sound, packets)
        for number in range(frames if images is None else len(images)):
            image = scene(number, *size) if images is None else images[number]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24" if image.dtype == np.uint8 else "rgb48le")
            frame = frame.reformat(format=pixels, dst_colorspace=9 if transfer else 5,
                                   dst_color_range=2 if pixels.startswith("yuvj") else 1)  # fmt: skip
            frame.time_base, frame.pts = context.time_base, stamps[number] if stamps else number
            if transfer:
                frame.color_trc, frame.color_primaries = transfer, 9
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def _write_sound(file: Any, stream: Any, count: int) -> None:
    for number in range(count):
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts = 16000, number * 1152
        file.mux(stream.encode(samples))
    file.mux(stream.encode(None))


def two_streams(path: Path) -> Path:
    """Write a small and a large video stream to one file."""
    with av.open(str(path), "w") as file:
        streams: list[Any] = [file.add_stream("mpeg4", rate=RATE) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 32 * (number + 1), 32, "yuv420p"
        for number in range(8):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(scene(number, stream.width, stream.height))
                frame.pts = number
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return path


def copied(
    source: Path, path: Path, *, first: int = 0, last: int | None = None, shift: bool = False, times: bool = True
) -> Path:
    """Copy packets `first` to `last` of a video without decoding, as ffmpeg's `-c copy` does.

    With `shift`, the first packets have times before 0, so that MP4 hides their frames by an edit list.
    """
    with av.open(str(source)) as given, av.open(str(path), "w") as file:
        stream = file.add_stream_from_template(given.streams.video[0])
        packets = [p for p in given.demux(given.streams.video[0]) if p.size]
        zero = packets[first + 5 if shift else first].dts or 0
        for packet in packets[first:last]:
            packet.pts = None if packet.pts is None else packet.pts - zero
            packet.dts = None if packet.dts is None else packet.dts - zero
            if not times:
                packet.pts = packet.dts
            packet.stream = stream
            file.mux(packet)
    return path


def cut(make: Maker, share: float = 0.0, *, less: int = 0) -> Maker:
    """Keep a share of the bytes, or all but the last `less`."""

    def apply(path: Path) -> Path:
        data = make(path).read_bytes()
        path.write_bytes(data[: -less if less else int(len(data) * share)])
        return path

    return apply


def cut_before(make: Maker, marker: bytes, *, plus: int = 0) -> Maker:
    """Keep the bytes before the last place of a marker."""

    def apply(path: Path) -> Path:
        data = make(path).read_bytes()
        path.write_bytes(data[: data.rindex(marker) + plus])
        return path

    return apply


def hole(make: Maker, share: float, length: int, *, marker: bytes = b"") -> Maker:
    """Overwrite bytes in the middle, from the first match of a pattern behind a share of the file."""

    def apply(path: Path) -> Path:
        data = bytearray(make(path).read_bytes())
        found = re.compile(marker, re.DOTALL).search(data, int(len(data) * share))
        assert found
        start = found.start()
        data[start : start + length] = np.random.default_rng(0).bytes(len(data[start : start + length]))
        path.write_bytes(data)
        return path

    return apply


def patched(make: Maker, change: Callable[[bytearray], None]) -> Maker:
    """Change the bytes of a file."""

    def apply(path: Path) -> Path:
        data = bytearray(make(path).read_bytes())
        change(data)
        path.write_bytes(data)
        return path

    return apply


def zero_deltas(*entries: int) -> Callable[[bytearray], None]:
    """Return a change that sets entries of the table of durations of an MP4 file to 0."""

    def change(data: bytearray) -> None:
        start = data.index(b"stts") + 12
        for entry in entries:
            data[start + 8 * entry + 4 : start + 8 * entry + 8] = bytes(4)

    return change


def empty_samples(*numbers: int) -> Callable[[bytearray], None]:
    """Return a change that empties samples of an MP4 file; their data become a tail of the samples before them."""

    def change(data: bytearray) -> None:
        start = data.index(b"stsz") + 16
        sizes = [struct.unpack_from(">I", data, start + 4 * n)[0] for n in range(max(numbers) + 1)]
        for number in numbers:
            struct.pack_into(">I", data, start + 4 * (number - 1), sizes[number - 1] + sizes[number])
            struct.pack_into(">I", data, start + 4 * number, 0)

    return change


def append(*extra: bytes) -> Callable[[bytearray], None]:
    """Return a change that appends bytes."""
    return lambda data: data.extend(b"".join(extra))


def without(start: int, end: int) -> Callable[[bytearray], None]:
    """Return a change that removes bytes."""
    return lambda data: data.__delitem__(slice(start, end))


def blank(start: int, end: int) -> Callable[[bytearray], None]:
    """Return a change that sets bytes to 0."""
    return lambda data: data.__setitem__(slice(start, end), bytes(end - start))


def written(name: str, number: int) -> Callable[[bytearray], None]:
    """Return a change that sets the 32-bit field behind the AVI header `name` at byte offset `number` to 999."""

    def change(data: bytearray) -> None:
        start = data.index(name.encode()) + 8 + number
        data[start : start + 4] = (999).to_bytes(4, "little")

    return change


def joined(*makers: Maker) -> Maker:
    """Write several files one behind the other."""

    def apply(path: Path) -> Path:
        parts = [make(path.with_stem(f"{path.stem}_{number}")) for number, make in enumerate(makers)]
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path

    return apply
