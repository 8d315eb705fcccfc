"""Pasting into and encoding of a region of a frame: equal to the whole frame's, at its borders and beyond them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.masks.resampling import paste_mask, paste_region


@settings(max_examples=200)
@given(st.data(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_a_region_is_encoded_like_the_whole_mask(data, seed, density):
    height, width = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    top, left = data.draw(st.tuples(st.integers(0, height), st.integers(0, width)))
    rows, columns = data.draw(st.tuples(st.integers(0, height - top), st.integers(0, width - left)))
    whole = np.zeros((height, width), bool)
    region = whole[top : top + rows, left : left + columns]
    region[:] = np.random.default_rng(seed).random((rows, columns)) < density
    assert Mask.encode_region(region, top=top, left=left, height=height, width=width) == Mask.encode(whole)


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (2, 0), (0, 3)])
def test_a_region_outside_the_mask_is_an_error(place):
    with pytest.raises(DataError, match="cannot encode a mask"):
        Mask.encode_region(np.ones((3, 3), bool), top=place[0], left=place[1], height=4, width=5)


@settings(max_examples=100)
@given(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4), st.integers(0, 2**32))
def test_nothing_is_pasted_outside_the_region(box, seed):
    values = np.random.default_rng(seed).random((5, 4), np.float32) + 1
    region, top, left = paste_region(values, np.array(box, np.float32), 9, 11)
    whole = paste_mask(values, np.array(box, np.float32), 9, 11)
    rows, columns = region.shape
    assert np.array_equal(whole[top : top + rows, left : left + columns], region)
    assert np.count_nonzero(whole) == np.count_nonzero(region)
    if min(region.shape) and box[0] < box[2] and box[1] < box[3]:
        cell = (box[2] - box[0]) / 4, (box[3] - box[1]) / 5
        assert columns <= box[2] - box[0] + cell[0] + 2
        assert rows <= box[3] - box[1] + cell[1] + 2


@pytest.mark.parametrize("box", [(np.nan, 0, 4, 4), (0, 0, np.inf, 4), (-np.inf, 0, np.inf, 4), (0, 0, 3e38, 4)])
def test_boxes_that_are_not_finite_have_a_region_inside_the_frame(box):
    region, top, left = paste_region(np.ones((3, 3), np.float32), np.array(box, np.float32), 6, 7)
    assert top + region.shape[0] <= 6
    assert left + region.shape[1] <= 7
