"""The way from frames to raw outputs: preprocessing, windows, steps of the graph, its state. All code paths take it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.backends.base import Arrays, Backend, State
from visdeploy.errors import StreamError
from visdeploy.manifest import ModelSpec
from visdeploy.methods import Decoder, decoder_class
from visdeploy.profiling import OFF, Profiler, Stage
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Feeder, Step, steps

Outputs = dict[str, npt.NDArray[Any]]


class Pipeline:
    """One model on one engine. Holds nothing of a stream, so any number of streams share it.

    Prediction, verification, certificates, validation during training and benchmarks all run through a pipeline, so a
    number measured in one of them is the number of the others.

    Args:
        spec: The graph and what its outputs mean: a bundle's manifest, or what training says about a network.
        backend: The engine.
        preprocess: From frames to inputs; by default as `spec` says.
        feeder: From inputs to steps, empty; by default as `spec` says.
        profiler: Takes the time of every stage; none by default.

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
    ) -> None:
        self.spec, self.backend, self.profiler = spec, backend, profiler
        self.preprocess = Preprocessor(spec.preprocessing) if preprocess is None else preprocess
        self.feeder = Feeder.of(spec) if feeder is None else feeder
        self._decode = spec.output_names(proof=False)
        self._decoder_class = decoder_class(spec.method)
        self.decoder()  # a wrong method or parameter fails now, not at the first stream

    @property
    def latency(self) -> int:
        """Frames between a push and the result of the same frame; 0 for online methods."""
        return self.feeder.window.length - 1

    def decoder(self, *, keep_tracks: bool = False) -> Decoder:
        """A decoder for one stream.

        Args:
            keep_tracks: Remember every track for `Decoder.summaries`.
        """
        return self._decoder_class.of(self.spec, keep_tracks=keep_tracks, profiler=self.profiler)

    def push(self, feeder: Feeder, frame: npt.NDArray[np.uint8], timestamp: float) -> tuple[Feeder, Step | None]:
        """Preprocess a frame and hand it to a stream's feeder.

        Args:
            feeder: The stream's frames so far.
            frame: RGB pixels, uint8 `[height, width, 3]`.
            timestamp: Seconds.

        Returns:
            The feeder with the frame, and the step that it completes, if any.

        Raises:
            SourceError: The frame has another dtype or shape.
        """
        tensor, content = self._prepare(frame)
        return feeder.push(tensor, timestamp, content)

    def _prepare(self, frame: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
        with self.profiler.stage(Stage.PREPROCESS):
            return self.preprocess(frame), self.preprocess.content_size(*frame.shape[:2])

    def steps(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Step]:
        """The steps of a whole video, the last one included.

        Args:
            frames: RGB pixels, uint8 `[height, width, 3]`, all of one size.
        """
        return steps(self.feeder, map(self._prepare, frames))

    def run(self, step: Step, state: State | None, *, proof: bool = False) -> tuple[Outputs, State]:
        """Run one step of the graph.

        Args:
            step: Its inputs.
            state: What the step before gave; None before the first one.
            proof: Fetch also the outputs that only certificates compare.

        Returns:
            The outputs on the host, and the next state.

        Raises:
            EngineError: The frames' size does not suit the graph, or the engine failed.
        """
        with self.profiler.stage(Stage.GRAPH):
            if state is None:
                state = self.backend.initial_state(self.backend.bind_inputs(step.inputs))
            return self.backend.run(step.inputs, state, None if proof else self._decode)

    def sizes(self, height: int, width: int) -> dict[str, int]:
        """The symbols that frames of one size bind, the number of frames in a step aside.

        Args:
            height: Rows of a frame as it comes from the source, in pixels.
            width: Columns of such a frame.
        """
        shape = self.spec.frames.shape
        given = self.preprocess.tensor_size(height, width)
        return {symbol: side for symbol, side in zip(shape[2:], given, strict=True) if isinstance(symbol, str)}

    def load_state(self, arrays: Arrays, size: tuple[int, int] | None) -> State | None:
        """Place a saved state on the device.

        Args:
            arrays: Graph input name → array; empty where the stream had made no step.
            size: Rows and columns of the stream's frames; None where it had seen none.

        Returns:
            The state; None before the first step.

        Raises:
            StreamError: An array is missing, unknown, or of another dtype or size.
        """
        if not arrays or size is None:
            if arrays:
                raise StreamError("the saved state contradicts itself", seen="a state without a frame")
            return None
        return self.backend.state_from_host(arrays, self.sizes(*size))
