"""Cases of the campaign of media files."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path

from tests.campaigns.media_files import (
    FRAMES,
    Case,
    append,
    blank,
    copied,
    cut,
    cut_before,
    empty_samples,
    hole,
    joined,
    patched,
    two_streams,
    video,
    without,
    written,
    zero_deltas,
)
from tests.campaigns.media_hdr import HDR_CASES
from tests.campaigns.media_images import IMAGE_CASES

FAST = {"movflags": "faststart"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
NO_TRAILER = {"movflags": "frag_keyframe+empty_moov+skip_trailer"}
EVEN = [number / 25 for number in range(FRAMES)]
SIMPLE_BLOCK = rb"\xa3([\x80-\xff]|[\x40-\x7f].)\x81"
HIDDEN = {"auto-alt-ref": "1", "lag-in-frames": "16"}
VFR = [0, 40, 50, 300, 340, 1000, 1700, 1710]

h264 = partial(video, options={"crf": "8"})
fast, fragments, bare = (partial(h264, container=options) for options in (FAST, FRAGMENTED, NO_TRAILER))
mjpeg = partial(video, codec="mjpeg", pixels="yuvj420p")
avi = partial(mjpeg)
avi4 = partial(video, codec="mpeg4")
vp9 = partial(video, codec="libvpx-vp9")
vp8 = partial(video, codec="libvpx")
mpeg1, mpeg2 = (partial(video, codec=f"mpeg{n}video", options={"b": "4M"}) for n in (1, 2))
live = partial(h264, container={"live": "1"})
large = partial(mpeg2, frames=50, size=(176, 144))


def copy(make, suffix: str = ".mp4", **options):
    """Return the maker of a copy of packets of the file that `make` writes."""

    def apply(path: Path) -> Path:
        return copied(make(path.with_name(f"{path.stem}_whole{suffix}")), path, **options)

    return apply


MP4_CASES = [
    Case("plain.mp4", "MP4, B-frames", h264),
    Case("fast.mp4", "MP4, index in front", fast),
    Case("vfr.mp4", "MP4, variable rate", partial(h264, frames=8, stamps=VFR)),
    Case("odd.mov", "MOV, MJPEG, odd size", partial(mjpeg, size=(51, 37))),
    Case("hevc.mp4", "MP4, HEVC", partial(video, codec="libx265", options={"x265-params": "log-level=none"})),
    Case("av1.mp4", "MP4, AV1", partial(video, codec="libsvtav1", size=(64, 64), frames=8)),
    Case("sound_first.mp4", "MP4, sound is stream 0", partial(fast, audio="before")),
    Case("sound_second.mp4", "MP4, sound is stream 1", partial(fast, audio="behind")),
    Case("two.mp4", "two video streams, larger one second", two_streams),
    *(Case(f"turn{d}.mp4", f"turned by {d}", partial(h264, turn=(d, False, False))) for d in (90, 180, 270)),
    Case("aspect.mp4", "pixels of 16:11", partial(h264, aspect=Fraction(16, 11))),
    Case("fragments.mp4", "fragmented", fragments),
    Case("bare.mp4", "fragmented, without its last box", bare, "unknown"),
    Case("hybrid.mp4", "first fragment in the index", partial(h264, container={"movflags": "frag_keyframe"}, gop=6)),
    Case("fragments_tail.mp4", "fragmented, bytes behind it", patched(fragments, append(b"tail of a recorder"))),
    Case("fragments_cut.mp4", "fragmented, cut in a fragment", cut(fragments, 0.8), "damaged"),
    Case("bare_cut.mp4", "fragmented, cut between two fragments", cut_before(bare, b"moof", plus=-4), "unknown"),
    Case("bare_cut2.mp4", "fragmented, cut inside a box's head", cut_before(bare, b"moof", plus=2), "damaged"),
    Case("trailer_cut.mp4", "fragmented, last box cut", cut(fragments, less=5)),
    Case("cut.mp4", "index in front, cut", cut(fast, 0.9), "damaged"),
    Case("cut_sound.mp4", "index in front, cut in the last bytes", cut(fast, less=2), "damaged"),
    Case("hole.mp4", "index in front, data overwritten", hole(partial(mjpeg, container=FAST), 0.5, 1500), "damaged"),
    Case("hole_first.mp4", "first frame overwritten", hole(fast, 0, 200, marker=rb"(?<=mdat)."), "damaged"),
    Case("edit.mp4", "copy, cut inside a group of pictures", copy(h264, shift=True)),
    Case("copy.mp4", "copy, from the second key frame on", copy(h264, first=12)),
    Case("copy_end.mp4", "copy of the first 17 packets", copy(h264, last=17)),
    Case("no_times.mp4", "B-frames without times of display", copy(h264, times=False), times=EVEN),
    Case(
        "zero_deltas.mp4",
        "two durations of 0",
        patched(partial(h264, frames=8, stamps=VFR, bframes=0), zero_deltas(2, 4)),
    ),
    Case(
        "zero_all.mp4",
        "all durations 0",
        patched(partial(mjpeg, container=FAST), zero_deltas(0)),
        times=[0.96 * number for number in range(FRAMES)],
    ),
    Case("empty.mov", "two samples of length 0", patched(partial(mjpeg, container=FAST), empty_samples(5, 9))),
    Case("empty_first.mov", "second sample empty", patched(partial(mjpeg, container=FAST), empty_samples(1))),
]
AVI_CASES = [
    Case("plain.avi", "AVI, MJPEG", avi),
    Case("mpeg4.avi", "AVI, MPEG-4 with B-frames", partial(avi4, bframes=2), times=EVEN),
    Case("h264.avi", "AVI, H.264 with B-frames", partial(h264, bframes=2), times=EVEN),
    Case(
        "gaps.avi",
        "AVI, empty chunks",
        partial(avi, frames=5, stamps=[0, 40, 80, 320, 360]),
        times=[0, 0.04, 0.08, 0.32, 0.36],
    ),
    Case("index_cut.avi", "AVI, cut in the index behind all frames", cut_before(avi, b"idx1", plus=40)),
    Case("no_index.avi", "AVI, cut before the index", cut_before(avi, b"idx1")),
    Case("cut.avi", "AVI, cut", cut(avi, 0.6), "damaged"),
    Case("hole.avi", "AVI, data overwritten", hole(avi, 0.5, 1500), "damaged"),
    Case("count.avi", "AVI, wrong count in the header", patched(avi, written("avih", 16))),
    Case(
        "open.avi",
        "AVI of an interrupted recorder",
        patched(cut_before(avi, b"idx1"), blank(4, 8)),
    ),
]
MATROSKA_CASES = [
    Case("plain.mkv", "MKV, H.264", h264),
    Case("ffv1.mkv", "MKV, FFV1, odd size", partial(video, codec="ffv1", size=(51, 37))),
    Case("late.mkv", "MKV, starts at 5 s", partial(h264, frames=4, stamps=[5000, 5100, 5200, 5300])),
    Case("vp8.webm", "WebM, VP8", vp8),
    Case("vp9.webm", "WebM, VP9", vp9),
    Case(
        "vp9_hidden.webm",
        "WebM, VP9 with hidden frames",
        partial(vp9, options=HIDDEN),
    ),
    Case(
        "vp8_hidden.webm",
        "WebM, VP8 with hidden frames",
        partial(vp8, options=HIDDEN),
    ),
    Case("live.mkv", "MKV of unknown length", live, "unknown"),
    Case("live_cut.mkv", "MKV of unknown length, cut", cut(live, 0.8), "damaged"),
    Case("cut.mkv", "MKV, cut", cut(h264, 0.8), "damaged"),
    Case("cut.webm", "WebM, cut", cut(vp9, 0.6), "damaged"),
    Case("cues_cut.mkv", "MKV, cut in the index behind all frames", cut(h264, less=7)),
    Case("sound_cut.mkv", "MKV, cut in sound behind all frames", cut(partial(h264, audio="behind", packets=40), 0.97)),
    Case("sound.ts", "TS, with sound", partial(h264, audio="before"), "unknown"),
    Case("no_cues.webm", "WebM, cut before its index", cut_before(vp9, b"\x1c\x53\xbb\x6b")),
    Case("hole.webm", "WebM, head of a block overwritten", hole(vp8, 0.4, 30, marker=SIMPLE_BLOCK), "damaged"),
    Case("hole.mkv", "MKV, head of a block overwritten", hole(h264, 0.6, 12, marker=SIMPLE_BLOCK), "damaged"),
    Case("headless.webm", "copy, without the first key frame", copy(vp9, ".webm", first=5), "unknown"),
    Case("headless.mkv", "copy, without the first key frame", copy(h264, ".mkv", first=5)),
]
MPEG_CASES = [
    Case("h264.ts", "TS, H.264", h264, "unknown"),
    Case("mpeg2.ts", "TS, MPEG-2", mpeg2, "unknown"),
    Case("cut.ts", "TS, cut", cut(h264, 0.71), "damaged"),
    Case("cut_even.ts", "TS, cut between packets", cut(h264, less=188 * 20), "damaged"),
    Case("hole.ts", "TS, packets overwritten", hole(h264, 0.5, 400), "damaged"),
    Case("loss.ts", "TS, packets lost", patched(large, without(188 * 60, 188 * 65)), "damaged"),
    Case("joined.ts", "TS, two recordings joined", joined(mpeg2, mpeg2), "unknown", times=[n / 25 for n in range(48)]),
    Case(
        "middle.ts",
        "TS, starts inside a packet",
        patched(large, without(0, 188 * 30 + 77)),
        "unknown",
    ),
    Case("headless.ts", "copy, without the first key frame", copy(h264, ".ts", first=5), "unknown"),
    Case("mpeg1.mpg", "MPG, MPEG-1", mpeg1, "unknown"),
    Case("mpeg2.mpg", "MPG, MPEG-2", mpeg2, "unknown"),
    Case("cut.mpg", "MPG, cut", cut(large, 0.6), "damaged"),
    Case("padding_cut.mpg", "MPG, cut in its padding", cut(mpeg1, less=20), "unknown"),
    Case("hole.mpg", "MPG, head of a packet overwritten", hole(large, 0.4, 40, marker=rb"\x00\x00\x01\xe0"), "damaged"),
    Case("plain.flv", "FLV", partial(video, codec="flv"), "unknown"),
    Case("cut.flv", "FLV, cut", cut(partial(video, codec="flv"), 0.8), "damaged"),
    Case("raw.h264", "H.264 without container", partial(h264, bframes=0), "unknown", times=EVEN),
]
CASES = [*MP4_CASES, *AVI_CASES, *MATROSKA_CASES, *MPEG_CASES, *HDR_CASES, *IMAGE_CASES]
