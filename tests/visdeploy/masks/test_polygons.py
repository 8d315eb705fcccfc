import numpy as np
import pytest

from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.masks.polygons import outlines, rasterize

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


def filled(dense):
    """Return a mask with its holes filled: what the outside does not reach through edges of pixels is inside."""
    from scipy import ndimage

    return ndimage.binary_fill_holes(dense)


@pytest.mark.parametrize("seed", range(30))
def test_outlines_give_the_mask_again(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    dense = rng.random((height, width)) < rng.choice([0.1, 0.4, 0.6, 0.9])
    found = outlines(Mask.encode(dense))
    mask, left_out = rasterize([each.ravel() for each in found], int(height), int(width))
    again = np.zeros_like(dense) if mask is None else mask.decode()
    assert left_out == 0
    assert not (dense & ~again).any()
    assert not (again & ~filled(dense)).any()


def test_outlines_run_along_the_edges_of_pixels():
    dense = np.zeros((12, 20), bool)
    dense[3, 4] = dense[6:10, 8:18] = True
    dense[7:9, 10:12] = False  # a hole
    large, small = outlines(Mask.encode(dense))
    assert small.tolist() == [[4, 3], [4, 4], [5, 4], [5, 3]]
    assert sorted(map(tuple, large.tolist())) == [(8, 6), (8, 10), (18, 6), (18, 10)]
    assert large.dtype == np.int32
    assert outlines(Mask.encode(np.zeros((3, 4)))) == []


def test_a_tolerance_saves_corners():
    y, x = np.mgrid[:100, :100]
    disc = Mask.encode((y - 50) ** 2 + (x - 50) ** 2 < 40**2)
    (exact,), (rough,) = disc.polygons(), disc.polygons(1.5)
    assert len(rough) < 30 < 100 < len(exact)
    mask, _ = rasterize([rough.ravel()], 100, 100)
    assert abs(mask.area - disc.area) < 0.03 * disc.area
