"""The parity certificate: the differences of two engines on the same frames, and whether they are within the limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from visdeploy.brief import brief, counted
from visdeploy.manifest import Tolerance

PIXEL_SLACK = 2
"""Pixels of a mask that may differ whatever its IoU: one differing pixel of 500 already gives an IoU of 0.998."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class OutputParity(_Record):
    """Comparison of one output over all frames.

    Attributes:
        name: Name of the output of the graph.
        measure: Name of the measure that compared it (see `TensorSpec.measure`).
        quantity: Description of the error, for display.
        worst: Error with the largest ratio to its limit: the largest error if the limit is the same in all frames.
        limit: Limit of that error.
        frame: Frame of that error, for clip methods the first frame of its clip; None if nothing was compared.
        compared: Number of elements compared, for masks the number of masks.
        passed: Whether the error was within its limit in every frame.
        note: Remark of the measure, in addition to the numbers.
    """

    name: str
    measure: str
    quantity: str = "largest error"
    worst: float
    limit: float
    frame: int | None
    compared: int
    passed: bool
    note: str = ""

    @property
    def share(self) -> float:
        """Ratio of the worst error to its limit."""
        return share_of_limit(self.worst, self.limit)


class Agreement(_Record):
    """Sizes of two sets, of detections or of (frame, track) entries, and of their intersection.

    Attributes:
        reference: Number of members of the reference's set.
        candidate: Number of members of the candidate's set.
        matched: Number of members of both.
        tied: Number of unmatched members, the same in both sets, that are near-ties for the last place (see
            `visdeploy.parity.rows`).
    """

    reference: int = 0
    candidate: int = 0
    matched: int = 0
    tied: int = 0

    @property
    def ratio(self) -> float:
        """Ratio of matched or tied members to the size of the union; 1 if both sets are empty."""
        common = self.matched + self.tied
        union = self.reference + self.candidate - common
        return common / union if union else 1.0


class AveragePrecision(_Record):
    """Mask AP of both engines on a small annotated data set.

    Attributes:
        reference: AP of the reference in 0..1; -1 if the data set has no annotated track.
        candidate: AP of the candidate.
        videos: Number of videos.
    """

    reference: float
    candidate: float
    videos: int

    @property
    def difference(self) -> float:
        """Absolute difference of both values."""
        return abs(self.candidate - self.reference)


class Certificate(_Record):
    """Parity certificate: what was compared, the differences of the engines, and the limits that were exceeded.

    Attributes:
        reference: Description of the engine taken as correct.
        candidate: Description of the engine under test.
        source: Origin of the frames.
        frames: Number of frames compared.
        height: Height of the frames of the source, in pixels.
        width: Width of the frames of the source, in pixels.
        tolerance: Limits of the comparison.
        outputs: One entry per output of the graph.
        detections: Raw detections of both engines, matched by the `identity` outputs.
        tracks: (frame, track id) entries of the decoded results; entries match if label and mask agree too.
        track_ids: Distinct track ids of both engines.
        smallest_mask_iou: Minimum over all common instances of the decoded results; None if there are none.
        mean_mask_iou: Mean over all common instances of the decoded results; None if there are none.
        tracks_note: Near-ties of the candidate's decoder that were decided as in the reference's (`Decoder.follow`).
        average_precision: AP of both engines, if ground truth was given; its limit is `Tolerance.average_precision`.
        failures: One sentence per exceeded limit, worst first; empty if the certificate passed.
        manifest: Digest of the manifest that was compared (`Bundle.digest`); empty in bundles of earlier versions.
    """

    schema_version: Literal[2] = 2
    reference: str
    candidate: str
    source: str
    frames: int
    height: int
    width: int
    tolerance: Tolerance
    outputs: list[OutputParity]
    detections: Agreement
    tracks: Agreement
    track_ids: Agreement
    smallest_mask_iou: float | None
    mean_mask_iou: float | None
    tracks_note: str = ""
    average_precision: AveragePrecision | None = None
    failures: list[str]
    manifest: str = ""

    def __repr__(self) -> str:
        compared = f"{self.candidate} against {self.reference}"
        return brief(self, passed=self.passed, compared=compared, failures=counted(self.failures))

    __str__ = __repr__

    @property
    def passed(self) -> bool:
        """Whether all errors are within their limits."""
        return bool(self.outputs) and not self.failures and all(output.passed for output in self.outputs)

    @property
    def worst(self) -> OutputParity | None:
        """The output with the largest ratio of error to limit; outputs that failed come first, as in `failures`."""
        ranked = worst_first(self.outputs)
        return ranked[0] if ranked else None


def share_of_limit(error: float, limit: float) -> float:
    """Return the ratio of an error to its limit; infinite for any error if the limit is 0."""
    if limit:
        return error / limit
    return math.inf if error else 0.0


def worst_first(outputs: Iterable[OutputParity]) -> list[OutputParity]:
    """Sort outputs: those that failed first, then in descending order of the ratio of error to limit."""
    return sorted(outputs, key=lambda output: (output.passed, -output.share))


def certificate_rows(certificate: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Format a certificate as a table for display.

    Args:
        certificate: A `Certificate` (or a `Report`) as a dictionary.

    Returns:
        Rows of what was checked, the value found, and the limit.
    """
    tolerance = certificate["tolerance"]
    rows = [("result", "failed" if certificate["failures"] else "passed", "passed")]
    rows += [("engines", f"{certificate['candidate']} against {certificate['reference']}", "")]
    size = f"{certificate['height']}x{certificate['width']}"
    rows += [("frames", f"{certificate['frames']} of {size}, {certificate['source']}", "")]
    recorded = certificate.get("manifest")
    covered = f"digest {recorded[:12]}…" if recorded else "not covered: exported by a version that recorded no digest"
    rows += [("manifest", covered, "unchanged")]
    if signer := certificate.get("signature"):
        rows.append(("signature", f"valid, key {signer[:12]}…", "valid"))
    for output in certificate["outputs"]:
        where = "" if output["frame"] is None else f" (frame {output['frame']})"
        note = f", {output['note']}" if output.get("note") else ""
        found = f"{output['worst']:.2e}{where}{note}"
        rows.append((f"{output['name']}: {output['quantity']}", found, f"{output['limit']:.0e}"))
    for what, title in (("detections", "detections in both"), ("tracks", "(frame, track) in both")):
        count = certificate[what]
        found = f"{count['matched']} of {max(count['reference'], count['candidate'])}"
        found += f", {count['tied']} nearly tied for the last place" if count.get("tied") else ""
        remark = certificate.get("tracks_note") if what == "tracks" else ""
        found += f"; {remark}" if remark else ""
        rows.append((title, found, f"{100 * tolerance['agreement']:g} %"))
    rows.append(("track ids in both", "{matched} of {reference}".format(**certificate["track_ids"]), ""))
    if certificate["smallest_mask_iou"] is not None:
        low, mean = certificate["smallest_mask_iou"], certificate["mean_mask_iou"]
        rows.append(("instance mask IoU", f"{low:.6f} smallest, {mean:.6f} mean", f"{tolerance['mask_iou']:g}"))
    if precision := certificate.get("average_precision"):
        found = f"{precision['candidate']:.4f} against {precision['reference']:.4f} ({precision['videos']} videos)"
        limit = Tolerance.model_validate(tolerance).average_precision
        rows.append(("average precision", found, f"{limit:.2g} apart"))
    return rows
