"""Base classes of the decoders, which convert raw outputs of a graph to instances with track ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from visdeploy.errors import BundleError, StreamError
from visdeploy.manifest import ModelSpec, Tolerance, Window
from visdeploy.parity.measures import Measure
from visdeploy.profiling import OFF, Profiler
from visdeploy.results import FrameResult
from visdeploy.streaming.windows import Step

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

Arrays = Mapping[str, npt.NDArray[Any]]
ParametersT = TypeVar("ParametersT", bound="Parameters")
DecodeT = TypeVar("DecodeT", bound="Parameters")
TrackingT = TypeVar("TrackingT", bound="Parameters")


class Parameters(BaseModel):
    """Base of the models that validate the fields `decode` and `tracking` of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_parameters(model: type[ParametersT], values: Mapping[str, Any], *, field: str) -> ParametersT:
    """Validate the field `decode` or `tracking` of a manifest by the model of the method.

    Raises:
        BundleError: An entry is unknown or has an invalid value; the message names it.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([field, *(str(part) for part in first["loc"])])
        raise BundleError(
            f"manifest.json: field {name!r}: {first['msg']}",
            seen=repr(first["input"])[:60],
            expected=f"the fields {sorted(model.model_fields)}",
            hint="Export the bundle again with this version.",
        ) from error


@dataclass(frozen=True)
class TrackSummary:
    """Label and score of a track over all frames in which it was present.

    Attributes:
        track_id: Track id in the stream.
        label: Index into the classes.
        score: Confidence in 0..1.
        class_scores: One score per class.
        presence: Number of these frames.
    """

    track_id: int
    label: int
    score: float
    class_scores: tuple[float, ...]
    presence: int


class Decoder(ABC, Generic[DecodeT, TrackingT]):
    """Converter of raw outputs to frame results, with the tracks of one stream.

    A subclass names the models of its parameters, and creates its tracks in `start`; it needs no constructor.

    Args:
        classes: Class names of the bundle.
        window: Frames of one step.
        decode: Field `decode` of the manifest.
        tracking: Field `tracking` of the manifest.
        keep_tracks: Keep every track for `summaries`. Otherwise, tracks that cannot continue are deleted, so that
            memory is bounded on endless streams.
        profiler: Measures the stages `decode of outputs` and `tracking`.

    Attributes:
        decode_parameters: The validated field `decode`.
        tracking_parameters: The validated field `tracking`.

    Raises:
        BundleError: A parameter is unknown or invalid.
    """

    decode_model: type[DecodeT]
    """Model of the field `decode` of the manifest."""
    tracking_model: type[TrackingT]
    """Model of the field `tracking` of the manifest."""
    measures: ClassVar[tuple[type[Measure], ...]] = ()
    """Measures of parity that the method adds to those of `visdeploy.parity.measures`."""
    threads: int = 1
    """Threads that decoding may use; they do not change its results. Set by the pipeline."""

    def __init__(
        self,
        classes: Sequence[str],
        *,
        window: Window,
        decode: Mapping[str, Any],
        tracking: Mapping[str, Any],
        keep_tracks: bool = False,
        profiler: Profiler = OFF,
    ) -> None:
        self.classes, self.window, self.keep_tracks, self.profiler = tuple(classes), window, keep_tracks, profiler
        self.decode_parameters = read_parameters(self.decode_model, decode, field="decode")
        self.tracking_parameters = read_parameters(self.tracking_model, tracking, field="tracking")
        self.start()

    @classmethod
    def of(cls, spec: ModelSpec, *, keep_tracks: bool = False, profiler: Profiler = OFF) -> Self:
        """Return the decoder of one stream of a model.

        Args:
            spec: Classes, window, and the parameters of decoder and tracker.
            keep_tracks: See `Decoder`.
            profiler: See `Decoder`.

        Raises:
            BundleError: A parameter is unknown or invalid.
        """
        return cls(
            spec.classes,
            window=spec.window,
            decode=spec.decode,
            tracking=spec.tracking,
            keep_tracks=keep_tracks,
            profiler=profiler,
        )

    @classmethod
    def latency(cls, window: Window) -> int:
        """Return the number of frames by which the result of a frame is delayed.

        Args:
            window: Frames of one step.
        """
        return window.length - 1

    @abstractmethod
    def start(self) -> None:
        """Create the tracks of a new stream, which has none; the constructor calls this last."""

    @abstractmethod
    def decode(self, outputs: Arrays, step: Step, *, height: int, width: int) -> list[FrameResult]:
        """Return the results that are final after a step, in frame order.

        The tracks do not change if an error is raised.

        Args:
            outputs: The graph's non-state outputs.
            step: The frames they belong to.
            height: Rows of the original frames, the size of the results' masks.
            width: Columns of the original frames.

        Raises:
            BundleError: An output is missing or malformed.
        """

    def finish(self) -> list[FrameResult]:
        """Return the remaining results after the last step of a stream."""
        return []

    def follow(self, reference: Self, tolerance: Tolerance) -> None:
        """Decide near-ties as the decoder of another engine does for the same frames, to compare both engines.

        A decision that rounding can reverse, such as which of two nearly equal values is the larger one, or on which
        side of a threshold a value is, can change masks or whole tracks. Only decisions that differences within the
        tolerance can reverse may follow the reference, so that a wrong output still gives wrong tracks. By default,
        none do. Called before the first step; in every step, the reference decodes first.

        Args:
            reference: Decoder of the engine taken as correct.
            tolerance: Limits within which the outputs of both engines may differ.
        """

    def followed(self) -> str:
        """Return how many near-ties were decided as in the followed decoder, for the certificate; empty for none."""
        return ""

    @abstractmethod
    def summaries(self) -> list[TrackSummary]:
        """Return the remembered tracks in ascending order of id; with `keep_tracks`, all of the stream."""

    @abstractmethod
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state of the decoder as arrays, to be restored by `load_state`."""

    def check_resumed(self, *, done: int, given: int, size: tuple[int, int] | None) -> None:
        """Check that a state taken back by `load_state` belongs to its stream.

        Args:
            done: Number of frames that have been part of a step.
            given: Number of results that this decoder has returned.
            size: Height and width of the stream's frames; None before the first.

        Raises:
            StreamError: It belongs to another position or size.
        """

    @abstractmethod
    def load_state(self, arrays: Arrays) -> None:
        """Restore the state returned by `state`.

        Raises:
            StreamError: The arrays are incomplete or inconsistent.
        """


class OnlineDecoder(Decoder[DecodeT, TrackingT]):
    """Decoder of a graph that processes one frame in each step. It keeps tracks, but no frames and no masks."""

    def decode(self, outputs: Arrays, step: Step, *, height: int, width: int) -> list[FrameResult]:
        """Return the result of the frame of the step, see `Decoder.decode`."""
        return [self.step(outputs, index=step.first, timestamp=step.timestamps[0], height=height, width=width)]

    @abstractmethod
    def step(self, outputs: Arrays, *, index: int, timestamp: float, height: int, width: int) -> FrameResult:
        """Return the result of the next frame. The tracks do not change if an error is raised.

        Args:
            outputs: The graph's non-state outputs.
            index: Position of the frame in its source.
            timestamp: Seconds from the start of the source.
            height: Rows of the original frame, the size of the result's masks.
            width: Columns of the original frame.

        Raises:
            BundleError: An output is missing or malformed.
        """


Position = tuple[int, int, tuple[int, int] | None]
"""Frames processed, results given out, and the size of the frames."""


def check_position(seen: Position, expected: Position) -> None:
    """Raise an error unless saved tracks of a clip method belong to this position of a stream.

    Raises:
        StreamError: They belong to another one.
    """
    if seen != expected:
        raise StreamError(
            "the saved tracks belong to another position of the stream",
            seen="frames processed, results, size: {}, {}, {}".format(*seen),
            expected="{}, {}, {}".format(*expected),
        )


def take_output(outputs: Arrays, name: str, shape: tuple[int | None, ...], dtype: str) -> npt.NDArray[Any]:
    """Return a raw output after checking its dtype and shape.

    Args:
        outputs: The graph's outputs.
        name: Name of the output.
        shape: Expected shape; None allows any size.
        dtype: Expected dtype.

    Raises:
        BundleError: The output is missing, or has another dtype or shape.
    """
    array = outputs.get(name)
    wanted = f"{dtype} {['any' if s is None else s for s in shape]}"
    if array is None:
        raise BundleError(f"the graph has no output {name!r}", seen=str(sorted(outputs)), expected=wanted)
    fits = array.ndim == len(shape) and all(s is None or s == a for s, a in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != np.dtype(dtype):
        raise BundleError(
            f"the graph's output {name!r} is malformed",
            seen=f"{array.dtype} {list(array.shape)}",
            expected=wanted,
            hint="Export the bundle again with this version.",
        )
    return array
