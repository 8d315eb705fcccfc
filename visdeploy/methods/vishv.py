"""Decoder of VIShv and STEm-Seg: pixels of a window are clustered, and windows are chained to tracks.

The network assigns an embedding, bandwidths and a seediness to every pixel of a window. Objects are clusters of the
foreground pixels (`visdeploy.tracking.embedding_clusters`); overlapping windows are chained by their common pixels
(`visdeploy.tracking.cluster_chain`). The steps follow the published implementations of "Hierarchical embeddings for
video instance segmentation" (VIShv, ACM MM 2021) and STEm-Seg (Athar et al., ECCV 2020).

The foreground of a frame is a mean over all windows that contain it. A window is therefore clustered as soon as no
later window can contain its frames; until then, its outputs are kept. Memory does not grow with the length of the
video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from visdeploy.errors import BundleError, StreamError
from visdeploy.manifest import ModelSpec, Tolerance, Window
from visdeploy.masks import Mask
from visdeploy.masks.resampling import resize_padded_mask
from visdeploy.methods.base import Arrays, Decoder, Parameters, TrackSummary, check_position
from visdeploy.methods.vishv_guide import Guide
from visdeploy.methods.vishv_parity import ClusterAgreement
from visdeploy.methods.vishv_tracks import Output, TrackTable, pixel_votes
from visdeploy.methods.vishv_windows import FrameSums, Waiting, WindowOutputs, add_window, pack, unpack
from visdeploy.profiling import OFF, Profiler, Stage
from visdeploy.results import FrameResult, Instance
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.streaming.windows import Step
from visdeploy.tracking.cluster_chain import Chain, Labels, Link
from visdeploy.tracking.cluster_rule import ClusterRule
from visdeploy.tracking.embedding_clusters import Clusters, find_clusters
from visdeploy.tracking.embedding_points import Points

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_SCALE = 4
"""Size of the network's input divided by that of maps which were not enlarged in the graph."""
Probability = Annotated[float, Field(ge=0, le=1)]


class DecodeParameters(Parameters):
    """Field `decode` of the manifest.

    Attributes:
        min_seediness: No cluster starts at a pixel below this seediness.
        primary_threshold: Minimum of `exp(-d / 2)` to join a cluster.
        secondary_threshold: The same for pixels that remain.
        max_clusters: Largest number of clusters of a window.
        free_dim_stds: Standard deviation of each embedding dimension without a predicted bandwidth.
        seediness_threshold: Minimum mean seediness of the foreground if the network has no semantic head.
        output: Data set whose rules select, order and classify the tracks.
        max_tracks: Largest number of tracks of a video.
    """

    min_seediness: Probability = 0.8
    primary_threshold: Probability = 0.5
    secondary_threshold: Probability = 0.3
    max_clusters: Annotated[int, Field(ge=1)] = 20
    free_dim_stds: tuple[Annotated[float, Field(gt=0)], ...] = ()
    seediness_threshold: Probability = 0.25
    output: Output = "ytvis"
    max_tracks: Annotated[int, Field(ge=1)] = 10

    @property
    def rule(self) -> ClusterRule:
        """Parameters of the clustering."""
        return ClusterRule(
            self.min_seediness,
            self.primary_threshold,
            self.secondary_threshold,
            self.max_clusters,
            self.free_dim_stds,
        )


class TrackingParameters(Parameters):
    """Field `tracking` of the manifest: chaining has no parameters."""


@dataclass(frozen=True)
class Evidence:
    """Values that decided about the pixels of a window, for the comparison of two engines.

    Attributes:
        points: The foreground pixels.
        margins: float32 `[T, h, w]`, mean of the foreground minus its threshold.
    """

    points: Points
    margins: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClusteredWindow:
    """Result of the last window that was clustered, for inspection.

    Attributes:
        frames: Its frames.
        foreground: bool `[T, h, w]`.
        clusters: Its clusters.
        counts: int64 `[T]`, foreground pixels of each frame.
        start: Label of its first cluster before chaining.
        chain: The tracks after this window.
        labels: Labels of the foreground pixels of the frames that no earlier window had.
        evidence: The values that decided; None without `VIShvDecoder.keep_evidence`.
    """

    frames: range
    foreground: npt.NDArray[np.bool_]
    clusters: Clusters
    counts: npt.NDArray[np.int64]
    start: int
    chain: Chain
    labels: dict[int, Labels]
    evidence: Evidence | None = None


@dataclass(frozen=True)
class _State:
    """Everything that decoding changes; replaced as a whole after a step without errors."""

    tracks: TrackTable
    chain: Chain = field(default_factory=Chain)
    waiting: tuple[Waiting, ...] = ()
    sums: dict[int, FrameSums] | None = None
    seen: int = 0
    given: int = 0
    size: tuple[int, int] | None = None


class VIShvDecoder(Decoder[DecodeParameters, TrackingParameters]):
    """Decoder of VIShv and STEm-Seg. See `Decoder` for the common arguments.

    A track id is the label of the published implementation minus one. All tracks are returned as they are found. Their
    score is the number of their pixels, relative to the largest track so far. `summaries` then selects and scores the
    tracks of the whole video, as the results of the data set demand.

    Attributes:
        windows: The windows that the last step completed, for inspection.
        keep_evidence: Whether `windows` contain the values that decided.
        preprocessor: Gives the size of a frame in the network's input. None, the default without `of`, means that the
            frames are not resized.
    """

    decode_model = DecodeParameters
    tracking_model = TrackingParameters
    measures = (ClusterAgreement,)
    preprocessor: Preprocessor | None = None
    keep_evidence: bool = False
    _guide: Guide | None = None

    @classmethod
    def of(cls, spec: ModelSpec, *, keep_tracks: bool = False, profiler: Profiler = OFF) -> Self:
        """Return the decoder of one stream of a model, see `Decoder.of`."""
        decoder = super().of(spec, keep_tracks=keep_tracks, profiler=profiler)
        decoder.preprocessor = Preprocessor(spec.preprocessing)
        return decoder

    @classmethod
    def latency(cls, window: Window) -> int:
        """See `Decoder.latency`: a window waits until no later one can contain its frames."""
        return window.length - 1 + -(-(window.length - 1) // window.stride) * window.stride

    def start(self) -> None:
        """See `Decoder.start`."""
        self.windows: tuple[ClusteredWindow, ...] = ()
        self._state = _State(TrackTable(self.decode_parameters.output))

    def decode(self, outputs: Arrays, step: Step, *, height: int, width: int) -> list[FrameResult]:
        """Return the results of the frames that are final after this window, see `Decoder.decode`.

        Args:
            outputs: `embeddings` float32 `[T, E, h, w]`, `bandwidths` float32 `[T, B, h, w]`, `seediness` float32
                `[T, h, w]`; with a semantic head, `class_logits` float32 `[T, classes + 1, h, w]` and
                `foreground_logits` float32 `[T, h, w]`.
            step: The frames they belong to.
            height: Rows of the original frames.
            width: Columns of the original frames.

        Raises:
            BundleError: An output is missing or malformed.
        """
        with self.profiler.stage(Stage.OUTPUTS):
            parameters, old = self.decode_parameters, self._state
            found = WindowOutputs.of(outputs, free_dims=len(parameters.free_dim_stds), channels=self._channels)
            skip = self._repetitions(found, step, old)
            self._scale(found.seediness.shape[1:], (height, width))
            places = [0] * skip + list(range(step.length))
            rows = [(row, step.first + place, step.timestamps[place]) for row, place in enumerate(places)]
            sums = add_window(old.sums or {}, found, rows)
            window = Waiting.of(found, step.first, skip=skip, length=step.length)
        state = _State(
            old.tracks, old.chain, (*old.waiting, window), sums, step.end, old.given, (height, width)
        )  # fmt: skip
        return self._finish(state, later=step.first + 1)

    def finish(self) -> list[FrameResult]:
        """Return the results of the last frames, which no later window contains."""
        return self._finish(self._state, later=self._state.seen)

    @property
    def _channels(self) -> int | None:
        """Number of classes with the background; None if classes do not count."""
        return None if self.decode_parameters.output == "davis" else len(self.classes) + 1

    def _threshold(self, sums: FrameSums) -> float:
        """Return the threshold of the foreground: of a logit, or, without semantic head, of the seediness."""
        return 0.0 if sums.semantic else self.decode_parameters.seediness_threshold

    def _repetitions(self, found: WindowOutputs, step: Step, state: _State) -> int:
        """Return the number of rows in front that repeat the first frame, after checking the sizes."""
        skip = len(found) - step.length if self.window.short_video == "repeat_first_frame" else 0
        shapes = {s.foreground.shape for s in (state.sums or {}).values()} | {found.seediness.shape[1:]}
        if skip < 0 or len(found) < step.length or len(shapes) > 1:
            raise BundleError(
                "the graph's output 'seediness' is malformed",
                seen=f"{len(found)} frames of {sorted(shapes)}",
                expected=f"{step.length} frames, all of one size",
                hint="Export the bundle again with this version.",
            )
        return skip

    def _scale(self, shape: Sequence[int], size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Return the size of the network's input divided by that of its outputs, and the size of its content."""
        content = self.preprocessor.content_size(*size) if self.preprocessor else size
        for scale in (1, _SCALE):
            if shape[0] * scale >= content[0] and shape[1] * scale >= content[1]:
                return scale, content
        raise BundleError(
            "the graph's output 'seediness' is malformed",
            seen=f"{shape[0]}x{shape[1]}",
            expected=f"the size of the input or a quarter of it, for {content[0]}x{content[1]} without padding",
            hint="Export the bundle again with this version.",
        )

    def _finish(self, state: _State, *, later: int) -> list[FrameResult]:
        """Cluster the windows that end before the frames of any later window, and return their results."""
        results: list[FrameResult] = []
        done: list[ClusteredWindow] = []
        sums, waiting = state.sums or {}, list(state.waiting)
        while waiting and waiting[0].end <= later:
            with self.profiler.stage(Stage.TRACKING):
                window = self._cluster(waiting.pop(0), sums, state.chain)
                tracks = self._count(state.tracks, window, sums)
            with self.profiler.stage(Stage.OUTPUTS):
                results += [self._result(tracks, window, t, sums[t].timestamp, state.size) for t in window.labels]
            if not self.keep_tracks:
                tracks = tracks.only({int(k) for each in window.chain.previous.values() for k in np.unique(each)})
            state = _State(tracks, window.chain, tuple(waiting), sums, state.seen, window.frames.stop, state.size)
            done.append(window)
        needed = min(waiting[0].first if waiting else state.seen, later)
        kept = {t: each for t, each in sums.items() if t >= needed}
        self._state = _State(state.tracks, state.chain, state.waiting, kept, state.seen, state.given, state.size)
        self.windows = tuple(done)
        return results

    def _cluster(self, window: Waiting, sums: dict[int, FrameSums], chain: Chain) -> ClusteredWindow:
        threshold = self._threshold(sums[window.first])
        foreground = np.stack([sums[t].mask(threshold) for t in window.frames])
        rule, guide, wanted = self.decode_parameters.rule, self._guide, tuple[Link, ...]()
        margins = None
        if guide or self.keep_evidence:
            margins = np.stack([sums[t].margins(threshold) for t in window.frames])
        if guide and margins is not None:
            foreground = guide.foreground(window.frames, foreground, margins)
        points = Points.of(window.embeddings, window.bandwidths, window.seediness, list(foreground))
        if guide:
            clusters, wanted = guide.find(window.frames, points, rule)
        else:
            clusters = find_clusters(points, rule, self.threads)
        parts = np.split(clusters.labels, np.cumsum(points.counts)[:-1])
        slack = guide.slack if guide else 0.0
        after, labels = chain.add(window.frames, parts, len(clusters), preferred=wanted, slack=slack)
        if guide:
            guide.count_links(after.links, chain.add(window.frames, parts, len(clusters))[0].links)
        evidence = Evidence(points, margins) if self.keep_evidence and margins is not None else None
        return ClusteredWindow(
            window.frames, foreground, clusters, points.counts, chain.next_label, after, labels, evidence
        )

    def _count(self, tracks: TrackTable, window: ClusteredWindow, sums: dict[int, FrameSums]) -> TrackTable:
        """Return the tracks with the pixels of the new frames of a window."""
        for frame, labels in window.labels.items():
            mask = window.foreground[frame - window.frames.start]
            logits = sums[frame].class_means(mask)
            tracks = tracks.add(frame, pixel_votes(labels, logits, tracks.output, len(self.classes)))
        return tracks

    def _result(
        self, tracks: TrackTable, window: ClusteredWindow, frame: int, timestamp: float, size: tuple[int, int] | None
    ) -> FrameResult:
        foreground = window.foreground[frame - window.frames.start]
        owners = np.full(foreground.shape, -1, np.int32)
        owners[foreground] = window.labels[frame]
        height, width = size or (1, 1)
        scale, content = self._scale(foreground.shape, (height, width))
        present = [int(k) for k in np.unique(window.labels[frame]) if k >= 0]
        taken = np.zeros((height, width), bool, order="F")
        instances = []
        for label in tracks.priority(present):
            mask = resize_padded_mask(owners == label, scale, content, height, width)
            mask &= ~taken
            taken |= mask
            encoded = Mask.encode(mask)
            if encoded.area:
                track = tracks.tracks[label]
                instances.append(Instance(label, track.judge(tracks.output)[0], track.pixels / tracks.most, encoded))
        instances.sort(key=lambda i: (-i.score, i.track_id))
        return FrameResult(frame, timestamp, height, width, tuple(instances), self.classes)

    def follow(self, reference: Self, tolerance: Tolerance) -> None:
        """Take seeds and links of another decoder where they are nearly tied with the best, see `Decoder.follow`."""
        reference.keep_evidence = True
        self._guide = Guide(lambda: reference.windows, tolerance)

    def followed(self) -> str:
        """See `Decoder.followed`."""
        return self._guide.note() if self._guide else ""

    def kept_tracks(self) -> list[TrackSummary]:
        """Return the tracks of the result of the data set, in its order: at most `max_tracks`, scored by their pixels.

        The score is the number of pixels, relative to the largest of these tracks.
        """
        table = self._state.tracks
        labels = table.kept(self.decode_parameters.max_tracks)
        most = max((table.tracks[k].pixels for k in labels), default=1)
        found = []
        for k in labels:
            track = table.tracks[k]
            label, scores = track.judge(table.output)
            found.append(TrackSummary(k, label, track.pixels / most, scores, track.lifetime + 1))
        return found

    def summaries(self) -> list[TrackSummary]:
        """Return the tracks of `kept_tracks` in ascending order of id. `presence` is the lifetime plus one."""
        return sorted(self.kept_tracks(), key=lambda each: each.track_id)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return windows, sums and tracks as arrays, see `Decoder.state`."""
        state, previous = self._state, self._state.chain.previous
        labels = list(previous.values())
        return {
            "position": np.array([state.seen, state.given, *(state.size or (0, 0))], np.int64),
            "chain.next": np.array(state.chain.next_label, np.int64),
            "chain.frames": np.array(list(previous), np.int64),
            "chain.counts": np.array([len(each) for each in labels], np.int64),
            "chain.labels": np.concatenate(labels) if labels else np.zeros(0, np.int32),
            **state.tracks.state(),
            **pack(state.waiting, state.sums or {}),
        }

    def check_resumed(self, *, done: int, given: int, size: tuple[int, int] | None) -> None:
        """See `Decoder.check_resumed`."""
        state = self._state
        check_position((state.seen, state.given, state.size), (done, given, size if done else None))

    def load_state(self, arrays: Arrays) -> None:
        """Restore the state returned by `state`.

        Raises:
            StreamError: The arrays are incomplete or inconsistent.
        """
        try:
            seen, given, height, width = (int(v) for v in arrays["position"])
            frames, counts, labels = (arrays[f"chain.{name}"] for name in ("frames", "counts", "labels"))
            if frames.shape != counts.shape or (counts < 0).any() or labels.shape != (counts.sum(),):
                raise ValueError(f"{labels.shape} labels of {frames.shape} frames")
            next_label, stored = int(arrays["chain.next"]), np.array(labels, np.int32)
            if labels.dtype != np.int32 or (len(stored) and not -1 <= stored.min() <= stored.max() < next_label):
                raise ValueError(f"{labels.dtype} labels that are not tracks before {next_label}")
            parts = np.split(stored, np.cumsum(counts)[:-1]) if len(frames) else []
            tracks = TrackTable.load(arrays, self.decode_parameters.output, len(self.classes))
            waiting, sums = unpack(arrays, free_dims=len(self.decode_parameters.free_dim_stds), channels=self._channels)
            for frame, count in zip(frames.tolist(), counts.tolist(), strict=True):
                # the windows that continue the chain compare the labels of these pixels with their own clusters
                if frame in sums and int(np.count_nonzero(sums[frame].mask(self._threshold(sums[frame])))) != count:
                    raise ValueError(f"{count} labels of frame {frame}, which has another foreground")
            present = {int(k) for k in np.unique(stored) if k >= 0}
            if not 0 <= given <= seen or not present <= set(tracks.tracks):
                raise ValueError(f"{given} of {seen} frames given out, tracks {sorted(present)}")
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise StreamError("the saved tracks cannot be read", seen=str(error)[:200]) from error
        chain = Chain(next_label, dict(zip(frames.tolist(), parts, strict=True)))
        size = (height, width) if seen else None
        self._state = _State(tracks, chain, waiting, sums, seen, given, size)
        self.windows = ()
