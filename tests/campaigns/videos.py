"""Videos in every container, damaged: the pictures are those of a plain decoding loop, and what is missing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.campaigns.damage import Rng, damage_file
from tests.campaigns.trials import Trial
from tests.visdeploy.video.clips import make_clip, picture
from visdeploy.errors import SourceError
from visdeploy.video import open_source

FRAMES = 12
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
CLIPS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "b-frames.mp4": {"audio": True},
    "fragmented.mp4": {"container": FRAGMENTED},
    "mpeg4.mov": {"codec": "mpeg4"},
    "turned.mp4": {"turn": (90, False, False)},
    "varied.mp4": {"stamps": [0, 0.03, 0.1, 0.2, 0.21, 0.4, 0.5, 0.6, 0.9, 1.0, 1.1, 1.3]},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "h264.mkv": {},
    "ffv1.mkv": {"codec": "ffv1"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "h264.ts": {},
    "mpeg1.mpg": {"codec": "mpeg1video"},
}


class Videos:
    """Kind `videos`: read with the damage passed over, compared with PyAV alone."""

    name, count = "videos", 640

    def prepare(self, folder: Path) -> None:
        av.logging.set_level(None)
        self.clips = []
        for name, options in CLIPS.items():
            path = folder / name
            if not path.exists():
                make_clip(path, frames=FRAMES, **options)
            self.clips.append(path)
        path = folder / "pictures.gif"
        images = [Image.fromarray(picture(i, 64, 48)) for i in range(FRAMES)]
        if not path.exists():
            images[0].save(path, save_all=True, append_images=images[1:], duration=40)
        self.clips.append(path)

    def trial(self, number: int, rng: Rng, folder: Path) -> Trial:
        clip = self.clips[number % len(self.clips)]
        path = folder / clip.name
        path.write_bytes(clip.read_bytes())
        label = f"{clip.name}: {damage_file(path, number // len(self.clips), rng)}"

        def right(found: tuple[list[float], str, str]) -> str:
            ours, error, verdict = found
            # with several threads, FFmpeg loses frames at damage, and conceals it in other ways
            plain, ahead = reference(path, "SLICE"), reference(path, "AUTO")
            if not min(len(plain), len(ahead)) <= len(ours) <= max(len(plain), len(ahead)):
                return f"{len(ours)} pictures, {len(plain)} or {len(ahead)} in a plain loop ({error[:200]})"
            if verdict != "complete":
                return ""
            # nothing tells a changed bit in the index of an MP4 file, which then states fewer frames
            if len(ours) < FRAMES and path.suffix not in (".mp4", ".mov"):
                return f"complete, with {len(ours)} of {FRAMES} pictures"
            if plain != ahead or clip.name.startswith("ffv1"):  # the decoder concealed damage without a word
                return ""
            far = [i for i, (a, b) in enumerate(zip(ours, plain, strict=True)) if abs(a - b) > 12]
            return f"complete, with other pictures from {far[0]} on" if far else ""

        return Trial(label, lambda: read(path), right, (path,))


def read(path: Path) -> tuple[list[float], str, str]:
    """Return the mean of every picture that we deliver, the error that ended it, and the verdict."""
    found: list[float] = []
    source = open_source(path, on_error="skip")
    try:
        for frame in source:
            found.append(float(frame.image.mean()))
    except SourceError as error:
        if not found:
            raise
        return found, str(error), source.verdict
    return found, "", source.verdict


def reference(path: Path, threads: str) -> list[float]:
    """Return the mean of all pictures of the first size that PyAV decodes, past the errors of single packets."""
    found: list[np.ndarray[Any, Any]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except (av.FFmpegError, ValueError):
                continue
            found += [frame.to_ndarray(format="rgb24") for frame in frames]
    sizes = {image.shape[:2] for image in found[:1]}
    return [float(image.mean()) for image in found if image.shape[:2] in sizes]


KIND = Videos()
