"""Checks of a bundle on a device by `gpu_bundles.py`: parity, saved streams, threads, and a single step.

Each check gives a sentence, or raises: `NotRun` where it cannot be made here, anything else where it failed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import visdeploy
from visdeploy.results import FrameResult, Instance

Frames = Sequence[NDArray[np.uint8]]
SMALLEST_IOU, LARGEST_SCORE_DIFFERENCE, FEWEST_AGREEING = 0.99, 0.01, 0.99
FINDINGS = 86
"""Exit status by which compute-sanitizer says that it found errors."""


class NotRun(Exception):
    """A check cannot be made on this machine."""


@dataclass(frozen=True)
class Agreement:
    """Two runs of one video compared.

    Attributes:
        entries: (frame, track) pairs in either run.
        agreeing: Those that both have, with one label, and masks and scores within the limits.
        identical: Whether the runs are equal to the last bit.
    """

    entries: int
    agreeing: int
    identical: bool

    def require(self) -> str:
        """The comparison as a sentence.

        Raises:
            AssertionError: Too few entries agree, or there was nothing to compare.
        """
        if not self.entries:
            raise AssertionError("nothing was compared: no instance in either run")
        text = f"{self.agreeing} of {self.entries} (frame, track) agree"
        if self.agreeing < FEWEST_AGREEING * self.entries:
            raise AssertionError(text)
        return "equal to the last bit" if self.identical else text


def compare(expected: Sequence[FrameResult], found: Sequence[FrameResult]) -> Agreement:
    """Compare two runs frame by frame."""
    if [frame.index for frame in expected] != [frame.index for frame in found]:
        raise AssertionError(f"other frames: {[f.index for f in expected]} and {[f.index for f in found]}")
    entries = agreeing = 0
    for first, second in zip(expected, found, strict=True):
        ours, theirs = ({each.track_id: each for each in frame} for frame in (first, second))
        entries += len(ours | theirs)
        agreeing += sum(_agree(ours[track], theirs[track]) for track in ours.keys() & theirs.keys())
    return Agreement(entries, agreeing, _plain(expected) == _plain(found))


def _agree(a: Instance, b: Instance) -> bool:
    first, second = a.mask.decode(), b.mask.decode()
    union, differing = int((first | second).sum()), int((first ^ second).sum())
    near = abs(a.score - b.score) <= LARGEST_SCORE_DIFFERENCE
    # two pixels of a small mask may be rounded otherwise
    return a.label == b.label and near and differing <= max(2.0, (1 - SMALLEST_IOU) * union)


def _plain(frames: Sequence[FrameResult]) -> list[tuple[object, ...]]:
    return [(f.index, i.track_id, i.label, i.score, i.mask.to_coco()["counts"]) for f in frames for i in f]


def video_of(bundle: visdeploy.Bundle, count: int) -> Frames:
    """The bundle's own clip, forwards and backwards until there are enough frames."""
    clip = list(bundle.selftest().frames)
    there_and_back = clip + clip[-2:0:-1]
    return [there_and_back[i % len(there_and_back)] for i in range(count)]


def run(stream: visdeploy.Stream, frames: Frames, *, last: bool = True) -> list[FrameResult]:
    """The results of some frames; those still due as well where they are the last ones."""
    results = [result for frame in frames if (result := stream.push(frame)) is not None]
    return results + stream.flush() if last else results


def check_parity(bundle: visdeploy.Bundle, device: str) -> str:
    """`verify` on the device."""
    report = visdeploy.verify(bundle.path, device)
    worst = ", ".join(f"{output.name} {output.worst:.1e}" for output in report.outputs)
    return f"on {report.device}, largest errors {worst}; {report.milliseconds:.1f} ms a step"


def check_resumed(bundle: visdeploy.Bundle, saved_on: str, resumed_on: str, frames: Frames) -> str:
    """A stream that is saved half-way on one device and resumed on the other continues its tracks."""
    half = len(frames) // 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.npz"
        before = visdeploy.VISPredictor(bundle, saved_on)
        with before.open_stream() as stream:
            first = run(stream, frames[:half], last=False)
            stream.save(path)
        after = visdeploy.VISPredictor(bundle, resumed_on)
        resumed = first + run(after.load_stream(path), frames[half:])
    return compare(run(after.open_stream(), frames), resumed).require()


def check_threads(bundle: visdeploy.Bundle, device: str, frames: Frames) -> str:
    """Two streams of one predictor in two threads give what each gives by itself."""
    predictor = visdeploy.VISPredictor(bundle, device)
    videos = (frames, [np.ascontiguousarray(frame[:, ::-1]) for frame in frames])
    alone = [run(predictor.open_stream(), video) for video in videos]
    together: list[list[FrameResult]] = [[], []]
    errors: list[BaseException] = []
    start = threading.Barrier(len(videos))

    def work(number: int) -> None:
        try:
            start.wait()
            together[number] = run(predictor.open_stream(), videos[number])
        except BaseException as error:  # raised again below, in the thread that asked
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(videos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return "; ".join(compare(*pair).require() for pair in zip(alone, together, strict=True))


def check_sanitizer(bundle: visdeploy.Bundle, device: str, sanitizer: str | None, seconds: float) -> str:
    """One step of the graph under compute-sanitizer."""
    if sanitizer is None:
        raise NotRun("there is no compute-sanitizer on this machine")
    program = [sys.executable, str(Path(__file__).with_name("gpu_bundles.py")), "step", str(bundle.path)]
    command = [sanitizer, "--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", str(FINDINGS)]
    try:
        done = subprocess.run(
            [*command, *program, "--device", device], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotRun(f"one step took longer than {seconds:g} s under compute-sanitizer") from error
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if any("Device not supported" in line for line in said):
        raise NotRun("compute-sanitizer does not support this device here")
    if done.returncode:
        findings = [line for line in said if line.startswith("=========") and len(line) > 12] or said
        raise AssertionError(" / ".join(findings[:3]) or f"exit status {done.returncode}")
    return said[-1] if said else "no findings"


def one_step(bundle: visdeploy.Bundle, device: str) -> str:
    """The first results of a bundle on a device: one step of its graph."""
    predictor = visdeploy.VISPredictor(bundle, device)
    stream = predictor.open_stream()
    found = run(stream, video_of(bundle, stream.latency + 1))
    return f"one step on {predictor.device}: {sum(map(len, found))} instances in {len(found)} frames"


def checks_of(
    bundle: visdeploy.Bundle, device: str, *, frames: int, sanitizer: str | None, seconds: float
) -> dict[str, Callable[[], str]]:
    """Return the checks of a bundle by name."""
    video = video_of(bundle, frames)
    return {
        "verify": lambda: check_parity(bundle, device),
        f"saved on {device}, resumed on the CPU": lambda: check_resumed(bundle, device, "cpu", video),
        f"saved on the CPU, resumed on {device}": lambda: check_resumed(bundle, "cpu", device, video),
        "two streams in two threads": lambda: check_threads(bundle, device, video),
        "compute-sanitizer": lambda: check_sanitizer(bundle, device, sanitizer, seconds),
    }
