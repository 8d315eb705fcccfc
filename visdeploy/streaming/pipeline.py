"""Pipeline from frames to raw outputs: preprocessing, windows, steps of the graph and its state.

Prediction, verification, certificates, validation during training and benchmarks all use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.backends.base import Arrays, Backend, State
from visdeploy.manifest import ModelSpec
from visdeploy.methods import Decoder, decoder_class
from visdeploy.profiling import OFF, Profiler, Stage
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Feeder, Step, steps

Outputs = dict[str, npt.NDArray[Any]]


class Pipeline:
    """One model on one engine. It keeps no state of a stream, so any number of streams can share it.

    Because all code paths use the same pipeline, a number measured in one of them, such as the AP during training, also
    applies to the others.

    Args:
        spec: Description of the graph and its outputs: the manifest of a bundle, or that of a network in training.
        backend: The engine.
        preprocess: Conversion of frames to inputs; by default as described in `spec`.
        feeder: Empty feeder that groups inputs into steps; by default as described in `spec`.
        profiler: Measures the time of every stage; by default nothing is measured.
        threads: CPU threads that decoding may use.

    Raises:
        BundleError: The method is unknown, or one of its parameters is unknown or wrong.
    """

    def __init__(
        self,
        spec: ModelSpec,
        backend: Backend,
        *,
        preprocess: Preprocessor | None = None,
        feeder: Feeder | None = None,
        profiler: Profiler = OFF,
        threads: int = 1,
    ) -> None:
        self.spec, self.backend, self.profiler, self.threads = spec, backend, profiler, threads
        self.preprocess = Preprocessor(spec.preprocessing) if preprocess is None else preprocess
        self.feeder = Feeder.of(spec) if feeder is None else feeder
        self._decode = spec.output_names(proof=False)
        self._decoder_class = decoder_class(spec.method)
        self.decoder()  # raises for a wrong method or parameter now, not at the first stream

    @property
    def latency(self) -> int:
        """Number of frames by which the result of a frame is delayed; 0 for online methods."""
        return self._decoder_class.latency(self.feeder.window)

    def decoder(self, *, keep_tracks: bool = False) -> Decoder:
        """Create a decoder for one stream.

        Args:
            keep_tracks: Keep data of every track for `Decoder.summaries`.
        """
        decoder = self._decoder_class.of(self.spec, keep_tracks=keep_tracks, profiler=self.profiler)
        decoder.threads = self.threads
        return decoder

    def push(self, feeder: Feeder, frame: npt.NDArray[np.uint8], timestamp: float) -> tuple[Feeder, Step | None]:
        """Preprocess a frame, and add it to the feeder of a stream.

        Args:
            feeder: Feeder with the frames of the stream so far.
            frame: RGB pixels, uint8 `[height, width, 3]`.
            timestamp: Timestamp in seconds.

        Returns:
            The feeder with the frame, and the step that is now complete, if any.

        Raises:
            SourceError: The frame has a wrong dtype or shape.
        """
        tensor, content = self._prepare(frame)
        return feeder.push(tensor, timestamp, content)

    def _prepare(self, frame: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
        with self.profiler.stage(Stage.PREPROCESS):
            return self.preprocess(frame), self.preprocess.content_size(*frame.shape[:2])

    def steps(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Step]:
        """Iterate over all steps of a video, including the last one.

        Args:
            frames: RGB pixels, uint8 `[height, width, 3]`, all of the same size.
        """
        return steps(self.feeder, map(self._prepare, frames))

    def run(self, step: Step, state: State | None, *, proof: bool = False) -> tuple[Outputs, State]:
        """Run one step of the graph.

        Args:
            step: The step with its inputs.
            state: State returned by the previous step; None for the first step.
            proof: Also fetch the outputs that only certificates compare.

        Returns:
            The outputs on the host, and the next state.

        Raises:
            EngineError: The graph does not accept the size of the frames, or the engine failed.
        """
        with self.profiler.stage(Stage.GRAPH):
            if state is None:
                state = self.backend.initial_state(self.backend.bind_inputs(step.inputs))
            return self.backend.run(step.inputs, state, None if proof else self._decode)

    def sizes(self, height: int, width: int) -> dict[str, int]:
        """Return the values of the symbols bound by the size of the frames, without the number of frames of a step.

        Args:
            height: Height of the frames of the source, in pixels.
            width: Width of the frames of the source, in pixels.
        """
        shape = self.spec.frames.shape
        given = self.preprocess.tensor_size(height, width)
        return {symbol: side for symbol, side in zip(shape[2:], given, strict=True) if isinstance(symbol, str)}

    def load_state(self, arrays: Arrays, size: tuple[int, int], *, started: bool) -> State | None:
        """Copy a saved state to the device.

        Args:
            arrays: Map from the name of a graph input to its array; empty if the stream was saved before its first
                step.
            size: Height and width of the stream's frames.
            started: Whether the stream had run a step.

        Returns:
            The state; None before the first step.

        Raises:
            StreamError: An array is missing, unknown, or has a wrong dtype or size.
        """
        if not started and not arrays:
            return None
        return self.backend.state_from_host(arrays, self.sizes(*size))
