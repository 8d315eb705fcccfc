"""Measure of parity of VIShv: whether two engines find the same clusters, apart from pixels at a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.manifest import ModelSpec, TensorSpec, Tolerance
from visdeploy.methods.vishv_ties import Slack, follow_clusters
from visdeploy.parity.certificate import PIXEL_SLACK, share_of_limit
from visdeploy.parity.measures import Absolute, Comparison, Outputs, StepContext
from visdeploy.tracking.cluster_rule import OUTLIER, ClusterRule
from visdeploy.tracking.embedding_clusters import find_clusters
from visdeploy.tracking.embedding_points import Points

BoolArray = npt.NDArray[np.bool_]


class ClusterAgreement(Absolute):
    """Difference of the seediness, and share of the pixels of a cluster that belong to another one.

    For the output `seediness`; the clusters follow from all outputs. Rounding can move a pixel across a threshold of
    the foreground or of a cluster, and can select another one of several seeds that are nearly tied. Neither is an
    error: pixels at a threshold are not compared, and the candidate starts a cluster at the seed of the reference if
    its own seediness there is within the tolerance of its best. The note states how many pixels and seeds were allowed
    to differ. The worse of the two errors is reported, as measured by its limit.
    """

    name = "vishv.clusters"
    quantity = "largest error of the seediness, or share of a cluster's pixels in another one"

    def __init__(self, spec: TensorSpec, tolerance: Tolerance) -> None:
        super().__init__(spec, tolerance)
        self._rule, self._threshold = ClusterRule(), 0.25
        self._allowed = self._points = self._tied = 0

    def attach(self, model: ModelSpec) -> None:
        """See `Measure.attach`."""
        from visdeploy.methods.base import read_parameters
        from visdeploy.methods.vishv import DecodeParameters

        super().attach(model)
        parameters = read_parameters(DecodeParameters, model.decode, field="decode")
        self._rule, self._threshold = parameters.rule, parameters.seediness_threshold

    def compare(self, reference: npt.NDArray[Any], candidate: npt.NDArray[Any], context: StepContext) -> Comparison:
        """See `Measure.compare`."""
        dense = super().compare(reference, candidate, context)
        clusters = self._compare_clusters(context)
        shares = [share_of_limit(each.error, each.limit) for each in (dense, clusters)]
        worse = clusters if not clusters.passed or (dense.passed and shares[1] > shares[0]) else dense
        return Comparison(worse.error, worse.limit, dense.passed and clusters.passed, dense.compared)

    def note(self) -> str:
        """Return how many pixels and seeds were allowed to differ."""
        return f"{self._allowed} of {self._points} pixels at a threshold and {self._tied} tied seeds differ"

    def _compare_clusters(self, context: StepContext) -> Comparison:
        limit = 1 - self.tolerance.mask_iou
        (left, close), (right, _) = (self._foreground(o) for o in (context.reference, context.candidate))
        both = left & right
        points = [_points(o, both) for o in (context.reference, context.candidate)]
        found = find_clusters(points[0], self._rule)
        again = follow_clusters(points[1], points[0], found, self._rule, Slack.of(self.tolerance, points[0]))
        labels = again.clusters.labels
        wrong = labels != found.labels
        lost = int(np.count_nonzero((left != right) & ~close))
        self._tied += again.seeds
        self._points += int(np.count_nonzero(left | right))
        self._allowed += again.pixels + int(np.count_nonzero((left != right) & close))
        error, passed = lost / max(int(np.count_nonzero(left)), 1), True
        passed = lost <= PIXEL_SLACK or error <= limit
        for number in range(OUTLIER, max(found.labels.max(initial=OUTLIER), labels.max(initial=OUTLIER)) + 1):
            mine = found.labels == number
            moved = int(np.count_nonzero(wrong & (mine | (labels == number))))
            share = moved / max(int(np.count_nonzero(mine)), 1)
            error = max(error, min(share, 1.0))
            passed &= share <= limit or moved <= PIXEL_SLACK
        return Comparison(error, limit, passed, wrong.size)

    def _foreground(self, outputs: Outputs) -> tuple[BoolArray, BoolArray]:
        """Return the foreground of a step, and the pixels that are at its threshold."""
        logits = outputs.get("foreground_logits")
        values = outputs["seediness"] if logits is None else logits
        threshold = np.float32(self._threshold if logits is None else 0.0)
        largest = float(np.abs(values).max(initial=0, where=np.isfinite(values)))
        slack = max(self.tolerance.atol, (self.tolerance.rtol or 0.0) * largest)
        return np.asarray(values > threshold), np.asarray(np.abs(values - threshold) <= slack)


def _points(outputs: Outputs, foreground: BoolArray) -> Points:
    return Points.of(outputs["embeddings"], outputs["bandwidths"], outputs["seediness"], list(foreground))
