"""The registry of measures: what a method adds, what it cannot replace, and types that NumPy lacks."""

import numpy as np
import pytest

from visdeploy.errors import BundleError
from visdeploy.manifest import TensorSpec, Tolerance
from visdeploy.parity.measures import (
    MEASURES,
    Absolute,
    Comparison,
    Exact,
    MaskIoU,
    Measure,
    Score,
    StepContext,
    find_measure,
)


class Parity(Measure):
    """Counts of odd numbers."""

    name = "toy.odd"
    quantity = "odd numbers gained or lost"

    def compare(self, reference, candidate, context):
        error = abs(int((reference % 2).sum()) - int((candidate % 2).sum()))
        return Comparison(error, 1, error <= 1, reference.size)

    def note(self):
        return "one granted"


class Impostor(Exact):
    """A measure that takes the name of another."""

    name = "exact"


def spec(dtype="int64", measure="absolute"):
    return TensorSpec(name="x", dtype=dtype, shape=[2], role="decode", measure=measure)


def context():
    return StepContext(0, {}, {}, np.arange(0), np.arange(0))


def test_a_method_adds_a_measure():
    measure = find_measure("toy.odd", (Parity,))(spec(), Tolerance())
    measure.update(np.array([1, 2]), np.array([1, 4]), context())
    assert (measure.result().passed, measure.result().note) == (True, "one granted")
    measure.update(np.array([1, 3]), np.array([2, 4]), context())
    found = measure.result()
    assert (found.passed, found.worst, found.limit, found.compared) == (False, 2, 1, 4)
    assert found.quantity == "odd numbers gained or lost"
    with pytest.raises(BundleError, match=r"toy\.odd"):
        find_measure("toy.odd")


def test_a_method_cannot_replace_a_measure():
    assert find_measure("exact", (Impostor,)) is Exact
    assert set(MEASURES) == {"absolute", "area", "exact", "identity", "mask", "ranking", "score"}


def bits(values):
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_bfloat16_is_compared_by_value():
    measure = Absolute(spec("bfloat16"), Tolerance(atol=0.1, rtol=0))
    assert measure.update(bits([1.0, -2.0]), bits([1.0, -2.0]), context()) == 0
    assert measure.update(bits([1.0, -2.0]), bits([1.0, -2.5]), context()) == 0.5
    assert not measure.result().passed


def test_another_shape_or_type_is_an_infinite_error():
    for other in (np.zeros(3, np.int64), np.zeros(2, np.int32)):
        measure = Exact(spec(), Tolerance())
        assert measure.update(np.zeros(2, np.int64), other, context()) == np.inf
        assert not measure.result().passed


def masks_and_scores(mask_axes, score_shape):
    """Return the measures of masks and of scores with these axes."""
    masks = TensorSpec(name="masks", dtype="uint8", shape=[*mask_axes, 4, 5], role="decode", measure="mask")
    scores = TensorSpec(name="scores", dtype="float32", shape=score_shape, role="decode", measure="score")
    return MaskIoU(masks, Tolerance()), Score(scores, Tolerance())


@pytest.mark.parametrize(
    ("mask_axes", "score_axes", "shape", "changed", "passed"),
    [
        (["n"], ["n"], (2,), (0,), True),
        (["n"], ["n"], (2,), (1,), False),  # the mask of this row is the same in both
        (["n"], ["n", 3], (2, 3), (0, 2), True),
        (["n"], ["n", 3], (2, 3), (1, 2), False),
        (["frames", "n"], ["frames", "n"], (1, 2), (0, 0), True),
        (["frames", "n"], ["frames", "n"], (1, 2), (0, 1), False),
        (["n"], ["others"], (2,), (0,), False),  # rows that correspond to no mask
        (["n"], [2], (2,), (0,), False),
    ],
)
def test_a_score_is_excused_by_the_mask_of_its_own_row_only(mask_axes, score_axes, shape, changed, passed):
    masks, scores = masks_and_scores(mask_axes, score_axes)
    step, before = context(), np.ones((*shape[: len(mask_axes)], 4, 5), np.uint8)
    after = before.copy()
    after[(0,) * len(mask_axes)][0, :2] = 0  # 2 of 20 pixels of the first mask
    masks.update(before, after, step)
    left = np.full(shape, 0.5, np.float32)
    right = left.copy()
    right[changed] += 0.15
    assert scores.update(left, right, step) == pytest.approx(0.15)
    assert scores.result().passed is passed


def test_the_larger_error_of_two_outputs_of_masks_counts():
    step, whole = context(), np.ones((1, 4, 5), np.uint8)
    for pixels in (1, 2, 0):
        masks, scores = masks_and_scores(["n"], ["n"])
        part = whole.copy()
        part[0, 0, :pixels] = 0
        masks.update(whole, part, step)
    scores.update(np.array([0.5], np.float32), np.array([0.69], np.float32), step)
    assert scores.result().passed
