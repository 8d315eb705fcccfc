"""Predictor: a bundle with its engine, for videos and streams."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from visdeploy.arguments import as_tuple, check_flag, check_type
from visdeploy.backends import Backend, open_backend
from visdeploy.brief import cut
from visdeploy.bundle import Bundle
from visdeploy.errors import ConfigError, SourceError
from visdeploy.partial import KeptStream, PartialStream
from visdeploy.profiling import OFF, Profiler, Stage
from visdeploy.results import FrameResult, VideoResult
from visdeploy.selection import Selection, Threshold
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.stream import Stream
from visdeploy.video import Source
from visdeploy.video.opening import open_with


class VISPredictor:
    """Video instance segmentation with one bundle.

    Args:
        bundle: Path of the bundle folder, or an opened `Bundle`.
        device: `auto` (CUDA if it starts, otherwise the CPU; the choice is logged), `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of the engine, and of decoding where it uses several; None leaves the choice to the engine,
            and lets decoding use all cores.
        spinning: Idle threads spin instead of sleeping; only for machines that are not shared.
        tf32: Allow TF32 on CUDA: faster and less exact than fp32, see `visdeploy.backends.open_backend`.
        profiler: Collects the time of every stage; default: none.
        key: PEM file of a public key; the bundle must be signed with it, see `Bundle.open`. An opened bundle is then
            opened again. Default: signatures are not checked.

    Attributes:
        bundle: The opened bundle.
        pipeline: The model on its engine.
        identity: Checksum of the bundle, to which saved streams belong.
        classes: Class names in the order of the labels.

    Raises:
        BundleError: The bundle is missing, damaged, unsafe, inconsistent, or not signed with `key`.
        ConfigError: `device`, `threads` or `key` has an invalid value.
        DependencyError: A package or a driver for the device is not installed.
        EngineError: The engine cannot start on the device.

    Example:
        >>> predictor = VISPredictor("visolo.vis")  # doctest: +SKIP
        >>> for frame in predictor.stream("street.mp4"):  # doctest: +SKIP
        ...     print(frame.index, [(i.track_id, predictor.classes[i.label]) for i in frame])
        >>> predictor("street.mp4").save("street.json")  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        device: str = "auto",
        threads: int | None = None,
        *,
        spinning: bool = False,
        tf32: bool = False,
        profiler: Profiler | None = None,
        key: str | os.PathLike[str] | None = None,
    ) -> None:
        check_flag(spinning, "spinning")
        check_flag(tf32, "tf32")
        if profiler is not None:
            check_type(profiler, Profiler, "profiler")
        if isinstance(bundle, Bundle):
            self.bundle = bundle if key is None else Bundle.open(bundle.path, key=key)
        else:
            self.bundle = Bundle.open(bundle, key=key)
        manifest = self.bundle.manifest
        self.identity = self.bundle.identity
        self.classes = tuple(manifest.classes)
        backend = open_backend(self.bundle, device, threads, spinning=spinning, tf32=tf32)
        self.pipeline = Pipeline(
            manifest,
            backend,
            profiler=OFF if profiler is None else profiler,
            threads=_num_cores() if threads is None else threads,
        )

    @property
    def backend(self) -> Backend:
        """Engine that runs the graph."""
        return self.pipeline.backend

    @property
    def device(self) -> str:
        """Device of the graph: `cpu` or `cuda:N`."""
        return self.backend.device

    @property
    def profiler(self) -> Profiler:
        """Profiler that collects the time of every stage."""
        return self.pipeline.profiler

    def stream(
        self,
        source: Any,
        *,
        threshold: Threshold | None = None,
        classes: Iterable[str] | None = None,
        keep_images: bool = False,
        **options: Any,
    ) -> Iterator[FrameResult]:
        """Yield results frame by frame. The required memory does not grow with the video.

        Clip methods return results later than they see the frames (`Stream.push`). Every frame has one result.

        Args:
            source: As for `visdeploy.video.open_source`: a video file, a folder of images, a glob, a URL, a
                camera index, an array `[frames, height, width, 3]`, or an iterable of RGB arrays.
            threshold: Minimum score of the returned instances, by their score so far: a number, or a map from class
                name to number, with `*` for all other classes. It changes neither the tracking nor track ids.
            classes: Names of the classes to return; by default all.
            keep_images: Return every result with the pixels of its frame (`FrameResult.image`).
            **options: Options of `open_source`, such as `start`, `step`, `max_frames`, `fps`, `on_error`.

        Raises:
            ConfigError: A class name or an option is unknown, or an option is out of range.
            SourceError: The source cannot be opened or decoded.
            EngineError: The graph failed.
        """
        stream = self.open_stream(threshold=threshold, classes=classes, keep_images=keep_images)
        # opened here, so that an error is raised by this call and not at the first frame
        return self._results(open_with(source, options), stream)

    def _results(self, opened: Source, stream: Stream) -> Iterator[FrameResult]:
        with opened, stream:
            for frame in self.profiler.iterate(Stage.DECODE, opened):
                if (result := stream.push(frame.image, frame.timestamp)) is not None:
                    yield result
            yield from stream.flush()

    def __call__(
        self,
        source: Any,
        *,
        threshold: Threshold | None = None,
        classes: Iterable[str] | None = None,
        on_frame: Callable[[int, int | None], None] | None = None,
        partial: PartialStream | None = None,
        **options: Any,
    ) -> VideoResult:
        """Return the tracks of a whole video.

        Args:
            source: See `stream`.
            threshold: Minimum score of the returned tracks, by their final class and score; see `stream`.
            classes: Names of the classes to return, by the final class of a track; by default all.
            on_frame: Called after every frame with the number of processed and of expected frames (None if unknown).
            partial: Where the progress is kept, see `visdeploy.partial`; by default nowhere.
            **options: Options of `open_source`, such as `start`, `step`, `max_frames`, `fps`, `on_error`.

        Raises:
            ConfigError: A class name or an option is unknown, or an option is out of range.
            SourceError: The source cannot be opened or decoded, or contains no frame.
            EngineError: The graph failed.
        """
        if on_frame is not None and not callable(on_frame):
            raise ConfigError("on_frame of a prediction", seen=type(on_frame).__name__, expected="a function, or None")
        if partial is not None:
            check_type(partial, PartialStream, "partial of a prediction")
        names = classes if classes is None or isinstance(classes, str) else (as_tuple(classes) or classes)
        choice: dict[str, Any] = {"threshold": threshold, "classes": names}
        Selection.of(self.classes, **choice)  # before the source is opened
        with open_with(source, options) as opened, self._collecting(opened, partial, choice) as stream:
            positions: list[int] = []
            for frame in self.profiler.iterate(Stage.DECODE, opened):
                stream.push(frame.image, frame.timestamp)
                positions.append(stream.num_frames - 1 if frame.position is None else frame.position)
                if on_frame is not None:
                    on_frame(stream.num_frames, opened.estimated_frames)
            stream.flush()
            if not stream.num_frames:
                seen = f"no frame from position {opened.start} on" if opened.start else ""
                raise SourceError(f"{opened.name} holds no frame", seen=seen, expected="at least one frame")
            result = stream.result()
            result.fps, result.expected_frames, result.source = opened.fps, opened.expected_frames, opened.path
            result.address, result.verdict = opened.address, opened.verdict
            if positions != list(range(len(positions))):
                result.positions = tuple(positions)
            return result

    def _collecting(self, source: Source, partial: PartialStream | None, choice: dict[str, Any]) -> Stream | KeptStream:
        """Return the stream for the tracks of a whole source."""
        if partial is None:
            return self.open_stream(collect=True, name=source.name, **choice)
        return partial.open(self, source, **choice)

    def open_stream(
        self,
        *,
        collect: bool = False,
        name: str = "stream",
        fps: float = 0.0,
        threshold: Threshold | None = None,
        classes: Iterable[str] | None = None,
        keep_images: bool = False,
    ) -> Stream:
        """Open a stream for frames of your own. Any number of streams can share this predictor.

        Args:
            collect: Keep the data for `Stream.result`; memory then grows with the video.
            name: Name of the result.
            fps: Frame rate, for frames that are pushed without a timestamp.
            threshold: Minimum score of the returned instances and, in `Stream.result`, of the tracks; see `stream`.
            classes: Names of the classes to return; by default all.
            keep_images: Return every result with the pixels of its frame (`FrameResult.image`), also where it comes
                later than the frame. The images of at most `Stream.latency` frames are kept.

        Raises:
            ConfigError: A class name is unknown, or an option is out of range.
        """
        return Stream(
            self.pipeline,
            identity=self.identity,
            collect=collect,
            name=name,
            fps=fps,
            threshold=threshold,
            classes=classes,
            keep_images=keep_images,
        )

    def load_stream(self, path: str | os.PathLike[str]) -> Stream:
        """Continue a stream that `Stream.save` wrote. Results are those of an uninterrupted stream.

        The choice of classes and scores, and whether images are kept, are those of the saved stream.

        Args:
            path: The saved stream.

        Raises:
            StreamError: The file is missing or damaged, or was saved with another bundle.
        """
        return Stream.load(self.pipeline, path, identity=self.identity)

    def __repr__(self) -> str:
        manifest = self.bundle.manifest
        facts = f"{str(self.bundle.path)!r}, {manifest.method} {manifest.variant}, on {self.device}"
        return cut(f"VISPredictor({facts})")


def _num_cores() -> int:
    """Return the number of cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(allowed(0)) if allowed else os.cpu_count() or 1
