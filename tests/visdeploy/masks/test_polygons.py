import numpy as np
import pytest

from visdeploy.errors import DataError
from visdeploy.masks.polygons import rasterize

SQUARE = [5, 5, 20, 5, 20, 20, 5, 20]
TRIANGLE = [30.5, 2.25, 45, 11, 28, 19.75]


def square():
    dense = np.zeros((40, 60), bool)
    dense[5:20, 5:20] = True
    return dense


@pytest.mark.parametrize(
    ("polygons", "left_out"),
    [
        ([SQUARE], 0),
        ((tuple(SQUARE),), 0),
        (np.array([SQUARE]), 0),
        ([np.array(SQUARE, np.float32)], 0),
        ([SQUARE, SQUARE], 0),
        ([[1, 2, 3, 4], SQUARE, []], 2),
        ([SQUARE, [1, 2, 3, 4, 5, 6, 7]], 1),
    ],
)
def test_a_square(polygons, left_out):
    mask, count = rasterize(polygons, 40, 60)
    np.testing.assert_array_equal(mask.decode(), square())
    assert count == left_out


def test_parts_are_united_as_pycocotools_does():
    from pycocotools import mask as coco

    mask, _ = rasterize([SQUARE, TRIANGLE], 40, 60)
    expected = coco.decode(coco.merge(coco.frPyObjects([SQUARE, TRIANGLE], 40, 60)))
    np.testing.assert_array_equal(mask.decode(), expected.astype(bool))
    assert mask.area > 225


@pytest.mark.parametrize("polygons", [[], [[1, 2, 3, 4]], [[70, 5, 80, 5, 80, 9]], [[5, 5, 5, 5, 9, 5, 9, 5]]])
def test_without_pixels(polygons):
    assert rasterize(polygons, 40, 60)[0] is None


@pytest.mark.parametrize("part", ["text", 5, {}, [1, 2, "3"], [1, 2, True], [float("inf")] * 6, [1, 2, 3, 4, 5, -1e9]])
def test_malformed(part):
    with pytest.raises(DataError, match="polygons"):
        rasterize([SQUARE, part], 40, 60)
