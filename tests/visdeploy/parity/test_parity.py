"""One comparison for export and verify: every measure, matched detections, tracks, and nothing hidden."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.visdeploy.step_graph import clip, fields, make_bundle
from visdeploy.backends import open_backend
from visdeploy.errors import BundleError
from visdeploy.manifest import Manifest, TensorSpec, Tolerance, Window
from visdeploy.parity.certificate import Agreement, AveragePrecision, Certificate, certificate_rows
from visdeploy.parity.meter import ParityMeter
from visdeploy.parity.rows import RowMatcher
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.windows import Step

MEASURES = {"cells": "identity", "masks": "mask", "overlaps": "area", "scores": "score"}
SIZE = (60, 90)


def measured_fields():
    data = fields()
    return data | {"outputs": [t | {"measure": MEASURES.get(t["name"], "absolute")} for t in data["outputs"]]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "a.vis", **measured_fields())


@pytest.fixture(scope="module")
def run(bundle):
    """Return the raw outputs of ten frames."""
    pipeline, state, outputs = Pipeline(bundle.manifest, open_backend(bundle, "cpu", 1)), None, []
    for step in pipeline.steps(clip(10, seed=3, size=SIZE)):
        found, state = pipeline.run(step, state, proof=True)
        outputs.append(found)
    assert sum(len(o["cells"]) for o in outputs) > 20
    return outputs


def compare(bundle, reference, candidate, **options):
    meter = ParityMeter(bundle.manifest, height=SIZE[0], width=SIZE[1], **options)
    for index, (left, right) in enumerate(zip(reference, candidate, strict=True)):
        meter.update(left, right, Step({}, index, (0.0,), 1))
    meter.finish()
    return meter.certificate(reference="r", candidate="c", source="s")


def copied(run):
    return [{k: v.copy() for k, v in o.items()} for o in run]


def output(certificate, name):
    return next(o for o in certificate.outputs if o.name == name)


def test_equal_runs_pass(bundle, run):
    certificate = compare(bundle, run, copied(run))
    assert certificate.passed
    assert certificate.frames == 10
    assert all(o.worst == 0 and o.passed for o in certificate.outputs)
    assert certificate.detections.matched == certificate.detections.reference == sum(len(o["cells"]) for o in run)
    assert certificate.tracks.matched == certificate.tracks.reference > 5
    assert certificate.smallest_mask_iou == certificate.mean_mask_iou == 1


@pytest.mark.parametrize(
    ("size", "passed"), [(0.0, True), (9e-4, True), (1.1e-3, False), (math.inf, False), (math.nan, False)]
)
def test_absolute_error_is_found_where_it_is(bundle, run, size, passed):
    changed = copied(run)
    changed[4]["cell_scores"][7] += size
    certificate = compare(bundle, run, changed)
    found = output(certificate, "cell_scores")
    assert certificate.passed is found.passed is passed
    if size:
        assert found.frame == 4
        assert found.worst == pytest.approx(size if math.isfinite(size) else math.inf, rel=1e-3)
        assert certificate.worst.name == "cell_scores"
    if not passed:
        assert certificate.failures[0].startswith("output 'cell_scores'")
        assert "frame 4" in certificate.failures[0]


def test_the_worst_output_is_the_first_failure(tmp_path, run):
    outputs = [o | {"measure": "exact"} if o["name"] == "query" else o for o in fields()["outputs"]]
    changed = copied(run)
    for found in changed:
        found["query"] += 2
        found["cell_scores"] += 1
    certificate = compare(make_bundle(tmp_path / "exact.vis", outputs=outputs), run, changed)
    assert output(certificate, "cell_scores").share > output(certificate, "query").worst, "tells the two orders apart"
    assert certificate.worst.name == "query", "an exact output may not differ at all"
    assert [failure.split(":")[0] for failure in certificate.failures[:2]] == ["output 'query'", "output 'cell_scores'"]


def test_equal_nan_and_infinities_are_equal(bundle, run):
    changed = copied(run)
    for outputs in changed:
        outputs["cell_scores"][:3] = (np.nan, np.inf, -np.inf)
    assert compare(bundle, changed, copied(changed)).passed


@pytest.mark.parametrize("damage", [lambda a: a[:-1], lambda a: a.astype(np.float64), lambda a: a[None]])
def test_another_shape_or_dtype_is_an_infinite_error(bundle, run, damage):
    changed = copied(run)
    changed[2]["cell_scores"] = damage(changed[2]["cell_scores"])
    certificate = compare(bundle, run, changed)
    assert output(certificate, "cell_scores").worst == math.inf
    assert Certificate.model_validate_json(certificate.model_dump_json()) == certificate


def busy(run):
    return max(range(len(run)), key=lambda t: len(run[t]["cells"]))


def reorder(outputs, order):
    """Return the same detections in another order."""
    return {
        k: v[np.ix_(order, order)] if k == "overlaps" else v if k == "cell_scores" else v[order]
        for k, v in outputs.items()
    }


def test_detections_are_matched_by_cell_not_by_place(bundle, run):
    frame = busy(run)
    count = len(run[frame]["cells"])
    assert count >= 3
    changed = copied(run)
    changed[frame] = reorder(changed[frame], np.roll(np.arange(count), 1))
    certificate = compare(bundle, run, changed)
    assert all(o.passed and o.worst == 0 for o in certificate.outputs)
    assert certificate.detections.ratio == 1


@pytest.mark.parametrize("side", [0, 1])
def test_a_missing_detection_is_counted(bundle, run, side):
    frame = busy(run)
    changed = copied(run)
    changed[frame] = reorder(changed[frame], np.arange(len(run[frame]["cells"]) - 1))
    pair = (run, changed) if side else (changed, run)
    certificate = compare(bundle, *pair)
    total = sum(len(o["cells"]) for o in run)
    assert not certificate.passed
    assert certificate.detections.matched == total - 1
    assert {certificate.detections.reference, certificate.detections.candidate} == {total, total - 1}
    assert any(f.startswith("detections") for f in certificate.failures)
    assert all(o.passed for o in certificate.outputs), "what both engines found is the same"


def test_no_common_detection_in_a_frame(bundle, run):
    changed = copied(run)
    changed[5] = reorder(changed[5], np.arange(0))
    certificate = compare(bundle, run, changed)
    assert not certificate.passed
    assert certificate.detections.candidate == certificate.detections.matched


@pytest.mark.parametrize(("pixels", "passed"), [(1, True), (2, True), (3, False), (40, False)])
def test_masks_may_differ_in_two_pixels_or_by_iou(bundle, run, pixels, passed):
    frame = busy(run)
    changed = copied(run)
    mask = changed[frame]["masks"][0].reshape(-1)
    inside = np.flatnonzero(mask)
    assert 50 < len(inside) < 1000
    mask[inside[:pixels]] = 0
    certificate = compare(bundle, run, changed)
    found = output(certificate, "masks")
    assert found.passed is passed
    assert found.worst == pytest.approx(pixels / len(inside))
    assert found.frame == frame
    wide = compare(bundle, run, changed, tolerance=Tolerance(mask_iou=0.1))
    assert output(wide, "masks").passed


@pytest.mark.parametrize(("pixels", "passed"), [(0, False), (1, True)])
def test_a_differing_pixel_explains_a_differing_score(bundle, run, pixels, passed):
    frame = busy(run)
    changed = copied(run)
    mask = changed[frame]["masks"][0].reshape(-1)
    inside = np.flatnonzero(mask)
    mask[inside[:pixels]] = 0
    change = 1 / len(inside)
    assert change > 1e-3, "more than the tolerance allows alone"
    changed[frame]["scores"][0] += change
    found = output(compare(bundle, run, changed), "scores")
    assert found.passed is passed
    assert found.worst == pytest.approx(change, rel=1e-3), "the error is stated whole"


@pytest.mark.parametrize(("pixels", "passed"), [(2, True), (30, False)])
def test_overlaps_are_judged_by_the_area_of_the_masks(bundle, run, pixels, passed):
    changed = copied(run)
    changed[busy(run)]["overlaps"][0, 0] += pixels
    assert output(compare(bundle, run, changed), "overlaps").passed is passed


def test_another_track_is_a_disagreement(bundle, run):
    changed = copied(run)
    for outputs in changed[5:]:
        outputs["query"][:] = -9  # nothing continues: new tracks are born
        outputs["reference"][:] = 9
    certificate = compare(bundle, run, changed, tolerance=Tolerance(atol=1e6))
    assert not certificate.passed
    assert certificate.tracks.matched < certificate.tracks.reference
    assert certificate.track_ids.candidate > certificate.track_ids.matched
    assert certificate.failures[0].startswith("tracks")
    lenient = compare(bundle, run, changed, tolerance=Tolerance(atol=1e6, agreement=0.1))
    assert lenient.passed


@settings(max_examples=20, deadline=None)
@given(noise=st.floats(0, 5e-3), frame=st.integers(0, 9))
def test_the_verdict_follows_the_error(bundle, run, noise, frame):
    changed = copied(run)
    changed[frame]["cell_scores"] += np.float32(noise)
    certificate = compare(bundle, run, changed)
    found = output(certificate, "cell_scores")
    assert found.passed == (found.worst <= 1e-3)
    assert found.worst == pytest.approx(noise, abs=1e-6)
    assert Certificate.model_validate_json(certificate.model_dump_json()) == certificate


@given(
    st.tuples(st.integers(0, 50), st.integers(0, 50)).flatmap(
        lambda s: st.tuples(*map(st.just, s), st.integers(0, min(s)))
    )
)
def test_agreement_is_a_share(counts):
    reference, candidate, matched = counts
    ratio = Agreement(reference=reference, candidate=candidate, matched=matched).ratio
    assert 0 <= ratio <= 1
    assert (ratio == 1) == (reference == candidate == matched)


def test_rows_for_people(bundle, run):
    certificate = compare(bundle, run, copied(run))
    scored = certificate.model_copy(
        update={"average_precision": AveragePrecision(reference=0.5, candidate=0.4999, videos=4)}
    )
    rows = certificate_rows(scored.model_dump())
    assert rows[0] == ("result", "passed", "passed")
    assert all(len(row) == 3 and all(isinstance(cell, str) for cell in row) for row in rows)
    assert any(row[0].startswith("cell_scores") and row[2] == "1e-03" for row in rows)
    assert rows[-1][1:] == ("0.4999 against 0.5000 (4 videos)", "0.002 apart")


@pytest.mark.parametrize(
    ("reference", "candidate", "tolerance", "passed"),
    [
        (0.5, 0.5, Tolerance(mask_iou=1, agreement=1), True),  # equal tracks have equal AP, whatever the tolerance
        (0.5, 0.499, Tolerance(mask_iou=1, agreement=1), False),
        (0.5, 0.4981, Tolerance(), True),
        (0.5, 0.4979, Tolerance(), False),
        (0.5, 0.5021, Tolerance(), False),  # a better AP is a difference too
        (0.5, 0.42, Tolerance(mask_iou=0.98, agreement=0.95), True),
        (0.5, 0.40, Tolerance(mask_iou=0.98, agreement=0.95), False),
        (-1.0, -1.0, Tolerance(), True),
    ],
)
def test_another_average_precision_fails_the_certificate(bundle, reference, candidate, tolerance, passed):
    meter = ParityMeter(bundle.manifest, height=SIZE[0], width=SIZE[1], tolerance=tolerance)
    measured = AveragePrecision(reference=reference, candidate=candidate, videos=4)
    certificate = meter.certificate(reference="r", candidate="c", source="s", average_precision=measured)
    assert certificate.passed is passed
    if not passed:
        (failure,) = certificate.failures
        assert f"{candidate:.4f} against {reference:.4f} on 4 videos" in failure
        assert f"allowed difference {tolerance.average_precision:.2g}" in failure


def test_a_method_without_an_identity_output_is_compared_in_place(run):
    manifest = Manifest.model_validate(fields() | {"files": {}})
    meter = ParityMeter(manifest, height=SIZE[0], width=SIZE[1])
    for index, outputs in enumerate(run):
        meter.update(outputs, outputs, Step({}, index, (0.0,), 1))
    certificate = meter.certificate(reference="r", candidate="c", source="s")
    assert certificate.passed
    assert certificate.detections.reference == 0


RANKED = (
    TensorSpec(name="scores", dtype="float32", shape=["frames", "pairs"], role="decode", measure="ranking"),
    TensorSpec(name="labels", dtype="int64", shape=["pairs"], role="decode", measure="identity"),
    TensorSpec(name="queries", dtype="int64", shape=["pairs"], role="decode", measure="identity"),
    TensorSpec(name="boxes", dtype="float32", shape=["frames", "pairs", 4], role="decode"),
    TensorSpec(name="mask_logits", dtype="float32", shape=["frames", "pairs", 28, 28], role="decode"),
)


@pytest.fixture
def ranked():
    """Return the manifest of a method that returns its four best pairs, and outputs for three frames of a clip."""
    manifest = Manifest.from_json(json.dumps(fields() | {"files": {}}))
    changes = {"method": "tevit", "outputs": list(RANKED), "state": [], "decode": {}, "tracking": {}}
    window = Window(mode="clip", length=3, stride=3)
    rng = np.random.default_rng(0)
    outputs = {
        "scores": np.array([[0.9, 0.7, 0.5, 0.30]] * 3, np.float32),
        "labels": np.array([0, 1, 1, 0]),
        "queries": np.array([4, 4, 2, 7]),
        "boxes": np.tile(np.array([0.1, 0.2, 0.8, 0.9], np.float32), (3, 4, 1)),
        "mask_logits": rng.normal(size=(3, 4, 28, 28)).astype(np.float32),
    }
    return manifest.model_copy(update=changes | {"window": window}), outputs


def compare_ranked(manifest, reference, candidate):
    meter = ParityMeter(manifest, height=SIZE[0], width=SIZE[1])
    meter.update(reference, candidate, Step({}, 0, (0.0, 0.1, 0.2), 3))
    meter.finish()
    return meter.certificate(reference="r", candidate="c", source="s")


def in_order(outputs, order):
    return {k: v[order] if v.ndim == 1 else v[:, order] for k, v in outputs.items()}


def test_pairs_are_matched_by_query_and_class_in_any_order(ranked):
    manifest, outputs = ranked
    certificate = compare_ranked(manifest, outputs, in_order(outputs, [2, 1, 3, 0]))
    assert certificate.passed
    assert certificate.detections == Agreement(reference=4, candidate=4, matched=4)
    assert all(o.worst == 0 and o.compared for o in certificate.outputs)
    assert certificate.tracks.matched == certificate.tracks.reference == 12


def test_rows_that_are_all_tied_prove_nothing(ranked):
    manifest, outputs = ranked
    outputs = outputs | {"scores": np.full_like(outputs["scores"], 0.01)}
    certificate = compare_ranked(manifest, outputs, outputs | {"queries": outputs["queries"] + 50})
    assert certificate.detections == Agreement(reference=4, candidate=4)
    assert not certificate.passed


@pytest.mark.parametrize(
    ("kept", "lost", "gained", "passed"),
    [
        ([0, 1, 2], 0.30, 0.3005, True),
        ([0, 1, 2], 0.30, 0.32, False),
        ([0, 1, 2], 0.30, math.nan, False),
        ([1, 2, 3], 0.90, 0.90, False),  # the best pair is no tie for the last place
    ],
)
def test_another_pair_at_the_last_place_must_be_tied(ranked, kept, lost, gained, passed):
    manifest, outputs = ranked
    row = next(iter(set(range(4)) - set(kept)))
    assert outputs["scores"][0, row] == np.float32(lost)
    changed = {k: v.copy() for k, v in outputs.items()}
    changed["queries"][row] = 9
    changed["scores"][:, row] = gained
    changed["mask_logits"][:, row] *= -1
    certificate = compare_ranked(manifest, outputs, changed)
    assert certificate.passed is passed
    assert certificate.detections == Agreement(reference=4, candidate=4, matched=3, tied=int(passed))
    assert ("1 nearly tied" in str(certificate_rows(certificate.model_dump()))) is passed
    assert certificate.tracks.reference == certificate.tracks.matched == 9, "what both have is compared all the same"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: {"shape": ["frames", 4]}}, "ranking"),
        ({0: {"measure": "absolute"}, 3: {"measure": "ranking"}, 4: {"measure": "ranking"}}, "ranking"),
        ({1: {"measure": "exact"}, 2: {"measure": "exact"}}, "ranking"),
        ({1: {"shape": [4]}, 2: {"shape": [4]}}, "identity"),
        ({1: {"shape": ["others"]}}, "identity"),
        ({1: {"shape": ["pairs", 1]}}, "identity"),
    ],
)
def test_measures_of_rows_must_fit_each_other(changed, message):
    outputs = [TensorSpec(**(spec.model_dump() | changed.get(i, {}))) for i, spec in enumerate(RANKED)]
    with pytest.raises(BundleError, match=f"measure '{message}'"):
        RowMatcher(outputs, 1e-3)


@pytest.mark.parametrize(
    ("change", "rtol", "passed"), [(4e-3, 1e-4, True), (6e-3, 1e-4, False), (4e-3, 0.0, False), (5e-4, 0.0, True)]
)
def test_large_values_may_differ_by_more(bundle, run, change, rtol, passed):
    frame, before = busy(run), copied(run)
    before[frame]["reference"].reshape(-1)[:2] = (50, np.nan)
    after = copied(before)
    after[frame]["reference"].reshape(-1)[2] += np.float32(change)
    found = output(compare(bundle, before, after, tolerance=Tolerance(rtol=rtol)), "reference")
    assert found.passed is passed
    assert found.limit == pytest.approx(max(1e-3, 50 * rtol))


def test_the_worst_error_is_the_one_furthest_beyond_its_limit(bundle, run):
    frame, before = busy(run), copied(run)
    other = next(t for t in range(len(run)) if t != frame)
    before[other]["reference"].reshape(-1)[0] = 1000
    after = copied(before)
    after[other]["reference"].reshape(-1)[1] += np.float32(0.05)
    after[frame]["reference"].reshape(-1)[1] += np.float32(0.01)
    found = output(compare(bundle, before, after), "reference")
    assert (found.passed, found.frame, found.limit) == (False, frame, 1e-3)
    assert found.worst == pytest.approx(0.01, rel=1e-3)
