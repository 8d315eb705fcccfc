"""Matching of tracks between clips by the masks in the frames that both contain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visdeploy.masks import Mask
from visdeploy.tracking.stitching import match, tube_overlaps


def tube(*masks):
    return [None if m is None else Mask.encode(np.asarray(m, np.uint8)) for m in masks]


ON, OFF = [[1, 1], [1, 1]], [[0, 0], [0, 0]]
LEFT, TOP = [[1, 0], [1, 0]], [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (tube(ON, ON), tube(ON, ON), 1.0),
        (tube(ON, None), tube(ON, ON), 0.5),
        (tube(LEFT, LEFT), tube(TOP, TOP), 1 / 3),
        (tube(None, None), tube(OFF, None), 0.0),
        (tube(ON, None), tube(None, ON), 0.0),
        (tube(LEFT, ON), tube(ON, OFF), 2 / 8),
    ],
)
def test_overlap_is_counted_through_all_frames(first, second, expected):
    assert tube_overlaps([first], [second])[0, 0] == pytest.approx(expected)


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_overlaps_equal_the_definition(rows, columns, frames, seed):
    rng = np.random.default_rng(seed)
    dense = [rng.random((n, frames, 5, 6)) < rng.random((n, frames, 1, 1)) for n in (rows, columns)]
    first, second = ([tube(*each) for each in side] for side in dense)
    found = tube_overlaps(first, second)
    assert found.shape == (rows, columns)
    for i, a in enumerate(dense[0]):
        for j, b in enumerate(dense[1]):
            union = (a | b).sum()
            assert found[i, j] == pytest.approx((a & b).sum() / union if union else 0.0)


def test_pairs_have_the_largest_sum_and_keep_the_threshold():
    similar = np.array([[0.9, 0.8, 0.0], [0.85, 0.1, 0.0], [0.0, 0.0, 0.05]])
    assert match(similar, 0.2) == [(0, 1), (1, 0)]
    assert match(similar, 0.9) == [(0, 0)]
    assert match(np.zeros((0, 3)), 0.1) == []
