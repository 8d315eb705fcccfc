"""The parity certificate: how far apart two engines are on the same frames, and whether that is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from visdeploy.manifest import Tolerance

PIXEL_SLACK = 2
"""Pixels of a mask that may differ whatever its IoU: one rounding in a mask of 500 pixels is an IoU of 0.998."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class OutputParity(_Record):
    """How one output fared over all frames.

    Attributes:
        name: Output of the graph.
        measure: How it was compared (see `TensorSpec.measure`).
        quantity: What the error is, for people.
        worst: Error nearest to its limit, or furthest beyond: the largest one where all frames have one limit.
        limit: What is allowed, there.
        frame: Frame of the worst value, the first one of its clip for clip methods; none where nothing was compared.
        compared: Number of elements (masks: of masks) compared.
        passed: Whether every frame kept the limit.
        note: What the measure says beside the numbers.
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
        """How much of its limit the worst error takes."""
        return share_of_limit(self.worst, self.limit)


class Agreement(_Record):
    """Two sets counted against each other: detections, or (frame, track) entries.

    Attributes:
        reference: Members of the reference's set.
        candidate: Members of the candidate's set.
        matched: Members of both.
        tied: Members of one set that stand for one of the other: nearly tied for last (`visdeploy.parity.rows`).
    """

    reference: int = 0
    candidate: int = 0
    matched: int = 0
    tied: int = 0

    @property
    def ratio(self) -> float:
        """Matched or tied members over members of either set; 1 where both are empty."""
        common = self.matched + self.tied
        union = self.reference + self.candidate - common
        return common / union if union else 1.0


class AveragePrecision(_Record):
    """Mask AP of both engines on a small annotated set."""

    reference: float
    candidate: float
    videos: int


class Certificate(_Record):
    """The parity proof: what was compared, how far apart the engines are, and whether that is allowed.

    Attributes:
        reference: The engine taken as right.
        candidate: The engine under test.
        source: The frames' origin.
        frames: Number of frames compared.
        height: Rows of a frame as it came from the source, in pixels.
        width: Columns of a frame as it came from the source, in pixels.
        tolerance: What was allowed.
        outputs: One entry per output of the graph.
        detections: Raw detections of both engines, matched by the `identity` outputs.
        tracks: (frame, track id) entries of the decoded results; matched where label and mask agree too.
        track_ids: Distinct track ids of both engines.
        smallest_mask_iou: Over all instances of the decoded results; none without a common instance.
        mean_mask_iou: Over all instances of the decoded results; none without a common instance.
        average_precision: AP of both engines, where ground truth was given.
        failures: One sentence per broken limit, worst first; empty when passed.
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
    average_precision: AveragePrecision | None = None
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.failures

    @property
    def worst(self) -> OutputParity | None:
        """The output furthest beyond, or nearest to, its limit; the first of `failures` where an output failed."""
        ranked = worst_first(self.outputs)
        return ranked[0] if ranked else None


def share_of_limit(error: float, limit: float) -> float:
    """How much of its limit an error takes; without a limit any error is infinitely too much."""
    if limit:
        return error / limit
    return math.inf if error else 0.0


def worst_first(outputs: Iterable[OutputParity]) -> list[OutputParity]:
    """Outputs that failed before those that passed, each furthest beyond, or nearest to, their limits first."""
    return sorted(outputs, key=lambda output: (output.passed, -output.share))


def certificate_rows(certificate: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A certificate as a table for people: what was checked, what was found, what is allowed.

    Args:
        certificate: A `Certificate` (or a `Report`) as a dictionary.
    """
    tolerance = certificate["tolerance"]
    rows = [("verdict", "failed" if certificate["failures"] else "passed", "passed")]
    rows += [("engines", f"{certificate['candidate']} against {certificate['reference']}", "")]
    size = f"{certificate['height']}x{certificate['width']}"
    rows += [("frames", f"{certificate['frames']} of {size}, {certificate['source']}", "")]
    for output in certificate["outputs"]:
        where = "" if output["frame"] is None else f" (frame {output['frame']})"
        note = f", {output['note']}" if output.get("note") else ""
        found = f"{output['worst']:.2e}{where}{note}"
        rows.append((f"{output['name']}: {output['quantity']}", found, f"{output['limit']:.0e}"))
    for what, title in (("detections", "detections in both"), ("tracks", "(frame, track) in both")):
        count = certificate[what]
        found = f"{count['matched']} of {max(count['reference'], count['candidate'])}"
        found += f", {count['tied']} nearly tied for the last place" if count.get("tied") else ""
        rows.append((title, found, f"{100 * tolerance['agreement']:g} %"))
    rows.append(("track ids in both", "{matched} of {reference}".format(**certificate["track_ids"]), ""))
    if certificate["smallest_mask_iou"] is not None:
        low, mean = certificate["smallest_mask_iou"], certificate["mean_mask_iou"]
        rows.append(("instance mask IoU", f"{low:.6f} smallest, {mean:.6f} mean", f"{tolerance['mask_iou']:g}"))
    if precision := certificate.get("average_precision"):
        found = f"{precision['candidate']:.4f} against {precision['reference']:.4f} ({precision['videos']} videos)"
        rows.append(("average precision", found, ""))
    return rows
