"""Union and difference of run-length encoded masks are those of the arrays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from visdeploy.masks import Mask
from visdeploy.masks.combining import difference, union

DENSE = arrays(bool, (5, 7))


def optional(dense):
    return Mask.encode(dense) if dense.any() else None


@given(st.lists(DENSE, min_size=1, max_size=4))
def test_union(planes):
    found = union([optional(plane) for plane in planes])
    assert union([Mask.encode(np.zeros((5, 7), bool)), None]) is None
    wanted = np.logical_or.reduce(planes)
    assert (found is None) == (not wanted.any())
    assert found is None or (found.decode() == wanted).all()
    assert union(Mask.encode(plane) for plane in planes) == found


@given(DENSE, DENSE)
def test_difference(first, second):
    assert (difference(Mask.encode(first), Mask.encode(second)).decode() == (first & ~second)).all()
    assert difference(Mask.encode(first), None) == Mask.encode(first)
    assert difference(None, Mask.encode(second)) is None
