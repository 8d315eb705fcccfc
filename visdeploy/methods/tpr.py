"""Decoder of TPR: identity of the detections, boxes and masks at the size of the frame, and the class of a track.

The graph returns the detections of a frame in descending order of score. The steps in this module follow the published
implementation of Temporal Pyramid Routing (Li et al., TPAMI 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import BundleError
from visdeploy.manifest import ModelSpec, TensorSpec, Tolerance
from visdeploy.methods.base import Arrays, OnlineDecoder, Parameters, TrackSummary, take_output
from visdeploy.methods.tpr_boxes import pasted_mask, scaled_boxes
from visdeploy.methods.tpr_votes import VoteTable
from visdeploy.parity.measures import Absolute, Comparison, StepContext
from visdeploy.profiling import OFF, Profiler, Stage
from visdeploy.results import FrameResult, Instance
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.tracking import Assignment, ObjectMemory

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

SHARE_LIMIT = 0.1
"""Largest difference of the mean share of open gates of a frame."""

FloatArray = npt.NDArray[np.float32]


class DecodeParameters(Parameters):
    """Field `decode` of the manifest.

    Attributes:
        mask_threshold: Minimum probability of a pixel inside a mask.
    """

    mask_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class TrackingParameters(Parameters):
    """Field `tracking` of the manifest, see `visdeploy.tracking.ObjectMemory`.

    Attributes:
        score_weight: Weight of the detection's score.
        iou_weight: Weight of the overlap with the box of the object.
        label_weight: Weight of the agreement with the class of the object.
        rescale_first_frame_memory: Remember the boxes of the first frame with detections in pixels of the original
            frame, as in the published implementation, which compares them with boxes in pixels of the network's input
            in the next frame. False remembers them in pixels of the network's input, like all others.
        max_objects: Maximum number of objects remembered; the published implementation has no limit.
    """

    score_weight: float = 1.0
    iou_weight: float = 2.0
    label_weight: float = 10.0
    rescale_first_frame_memory: bool = True
    max_objects: Annotated[int, Field(ge=1)] = 1024


@dataclass(frozen=True)
class TPRStep:
    """Decisions of the last step, for inspection.

    Attributes:
        assignment: Identities of all detections of the graph.
        boxes: float32 `[n, 4]`, their boxes in pixels of the original frame, clipped to it.
        kept: int64 `[k]`, the detections whose clipped boxes have an extent.
    """

    assignment: Assignment
    boxes: FloatArray
    kept: npt.NDArray[np.int64]


class OpenGates(Absolute):
    """Difference of the mean share of open gates of a frame; the note states the mean over all frames.

    The output has the share of every gated block, negative in frames without gates. A gate whose activation is close to
    0 can be open on one engine and closed on another. Its value is then close to 0 on both, and does not affect the
    features. The shares of single blocks, which can have few positions, are therefore not compared.
    """

    name = "tpr.open_gates"
    quantity = "largest difference of the share of open gates"

    def __init__(self, spec: TensorSpec, tolerance: Tolerance) -> None:
        super().__init__(spec, tolerance)
        self._shares: list[float] = []

    def least_limit(self) -> float:
        """See `Measure.least_limit`."""
        return SHARE_LIMIT

    def compare(self, reference: npt.NDArray[Any], candidate: npt.NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        shares = [float(each.mean(dtype=np.float64)) for each in (reference, candidate)]
        if min(shares) >= 0:
            self._shares.append(shares[1])
        error = abs(shares[0] - shares[1])
        return Comparison(error, SHARE_LIMIT, error <= SHARE_LIMIT, reference.size)

    def note(self) -> str:
        """Return the mean share of open gates."""
        return f"{100 * float(np.mean(self._shares)):.1f} % of the gates open" if self._shares else ""


class TPRDecoder(OnlineDecoder[DecodeParameters, TrackingParameters]):
    """Decoder of TPR. See `Decoder` for the common arguments.

    Two detections of a frame can have the same track id (see `Assignment`). The mask of the track is then that of the
    later detection, while its label and score follow from both.

    Every stream has its own decoder. In the published implementation, the objects of a video remain if the first frame
    of the next video has no detections; here, no object of one video is ever found in another.

    Attributes:
        last: Decisions of the last step; None before the first step.
        preprocessor: Gives the size of a frame in the network's input. None, the default without `of`, means that the
            frames are not resized.

    """

    decode_model = DecodeParameters
    tracking_model = TrackingParameters
    measures = (OpenGates,)
    preprocessor: Preprocessor | None = None

    @classmethod
    def of(cls, spec: ModelSpec, *, keep_tracks: bool = False, profiler: Profiler = OFF) -> Self:
        """Return the decoder of one stream of a model, see `Decoder.of`."""
        decoder = super().of(spec, keep_tracks=keep_tracks, profiler=profiler)
        decoder.preprocessor = Preprocessor(spec.preprocessing)
        return decoder

    def start(self) -> None:
        """See `Decoder.start`."""
        self.memory = self._new_memory()
        self.last: TPRStep | None = None
        self._votes = VoteTable(len(self.classes))

    def _new_memory(self) -> ObjectMemory:
        return ObjectMemory(**self.tracking_parameters.model_dump(exclude={"rescale_first_frame_memory"}))

    def step(self, outputs: Arrays, *, index: int, timestamp: float, height: int, width: int) -> FrameResult:
        """Return the result of the next frame, see `OnlineDecoder.step`.

        Args:
            outputs: `scores` float32 `[n]`, `labels` int64 `[n]`, `boxes` float32 `[n, 4]` (left, top, right, bottom
                in pixels of the network's input, not clipped), `masks` float32 `[n, h, w]` (probabilities in the
                boxes), `embeddings` float32 `[n, d]`; rows in descending order of score.
            index: Position of the frame in its source.
            timestamp: Seconds from the start of the source.
            height: Rows of the original frame.
            width: Columns of the original frame.

        Raises:
            BundleError: An output is missing or malformed, or a label is out of range.
        """
        with self.profiler.stage(Stage.TRACKING):
            scores, labels, boxes, masks, embeddings = self._take(outputs)
            network = self.preprocessor.content_size(height, width) if self.preprocessor else (height, width)
            clipped = scaled_boxes(boxes, network, (height, width))
            first_boxes = clipped if self.tracking_parameters.rescale_first_frame_memory else None
            assignment = self.memory.update(embeddings, boxes, labels, scores, first_boxes=first_boxes)
            kept = np.flatnonzero((clipped[:, :2] < clipped[:, 2:]).all(axis=1))
            self.last = TPRStep(assignment, clipped, kept)
            rows = kept[assignment.object_ids[kept] >= 0]
            track_ids = assignment.object_ids[rows]
            self._votes.add(track_ids, labels[rows], scores[rows])
        with self.profiler.stage(Stage.OUTPUTS):
            instances = []
            threshold = self.decode_parameters.mask_threshold
            for track_id, row in dict(zip(track_ids.tolist(), rows.tolist(), strict=True)).items():
                mask = pasted_mask(masks[row], clipped[row], threshold=threshold, height=height, width=width)
                if mask.area:
                    votes = self._votes.tracks[track_id]
                    instances.append(Instance(track_id, votes.label, votes.score, mask))
        if not self.keep_tracks:
            self._votes.forget(assignment.forgotten)
        instances.sort(key=lambda i: (-i.score, i.track_id))
        return FrameResult(index, timestamp, height, width, tuple(instances), self.classes)

    def _take(self, outputs: Arrays) -> tuple[npt.NDArray[Any], ...]:
        """Return scores, labels, boxes, masks and embeddings after checking them."""
        scores = take_output(outputs, "scores", (None,), "float32")
        n = len(scores)
        labels = take_output(outputs, "labels", (n,), "int64")
        if n and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise BundleError(
                "the graph's output 'labels' is malformed",
                seen=f"{labels.min()} to {labels.max()}",
                expected=f"0 to {len(self.classes) - 1}",
                hint="Export the bundle again with this version.",
            )
        boxes = take_output(outputs, "boxes", (n, 4), "float32")
        masks = take_output(outputs, "masks", (n, None, None), "float32")
        size = self.memory.objects.embeddings.shape[1] or None
        return scores, labels, boxes, masks, take_output(outputs, "embeddings", (n, size), "float32")

    def summaries(self) -> list[TrackSummary]:
        """Return the remembered tracks in ascending order of id, see `Decoder.summaries`.

        The label is the most frequent class of the track's detections, the score their mean score. The score of a class
        is the mean score times the share of detections of that class.
        """
        return self._votes.summaries()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return objects and votes as arrays, see `Decoder.state`."""
        groups = {"memory": self.memory.state(), "votes": self._votes.state()}
        return {f"{group}.{name}": array for group, arrays in groups.items() for name, array in arrays.items()}

    def load_state(self, arrays: Arrays) -> None:
        """Restore the state returned by `state`.

        Raises:
            StreamError: The arrays are incomplete or inconsistent.
        """
        memory = self._new_memory()
        memory.load_state(_group(arrays, "memory."))
        votes = VoteTable.from_arrays(
            _group(arrays, "votes."), classes=len(self.classes), num_tracks=memory.num_objects
        )
        self.memory, self._votes, self.last = memory, votes, None


def _group(arrays: Arrays, prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
