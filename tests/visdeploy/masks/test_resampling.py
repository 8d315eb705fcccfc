"""Mask resizing and pasting against PyTorch, and the decision of exact ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.masks.resampling import paste_mask, resize_mask

pytestmark = pytest.mark.isa


def by_torch(mask, height, width):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(mask[None, None].astype(np.float32))
    return torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


def shapes(kind, height, width, rng):
    if kind == "noise":
        return rng.random((height, width)) > 0.5
    mask = np.zeros((height, width), bool)
    mask[rng.integers(height) :, rng.integers(width) :] = True
    return mask


def check(mask, height, width):
    found, wanted = resize_mask(mask.astype(np.uint8), height, width), by_torch(mask, height, width)
    ties = np.abs(wanted - 0.5) < 2e-5
    assert np.array_equal(found[~ties], wanted[~ties] >= 0.5)
    assert found.shape == (height, width)
    assert found.flags.f_contiguous


@pytest.mark.parametrize("size", [(360, 640), (720, 1280), (1280, 720), (480, 854), (352, 624), (704, 1248), (101, 57)])
@pytest.mark.parametrize("kind", ["noise", "box"])
def test_equal_to_torch_at_the_method_size(size, kind):
    check(shapes(kind, 352, 624, np.random.default_rng(sum(size))), *size)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 4), st.sampled_from(["noise", "box"]), st.integers(0, 2**32))
def test_equal_to_torch_at_any_size(sizes, kind, seed):
    height, width, new_height, new_width = sizes
    check(shapes(kind, height, width, np.random.default_rng(seed)), new_height, new_width)


@pytest.mark.parametrize("size", [3, 5, 13, 27, 99, 45])
def test_a_pixel_on_the_edge_is_inside(size):
    edge = np.array([[1], [0]], np.uint8)  # an odd number of rows puts the middle one exactly on the edge
    assert resize_mask(edge, size, 1)[:, 0].tolist() == [True] * (size // 2 + 1) + [False] * (size // 2)


def pasted_by_torch(values, box, height, width):
    torch = pytest.importorskip("torch")
    (x0, y0, x1, y1), places = box, []
    for count, low, high in ((height, y0, y1), (width, x0, x1)):
        place = (torch.arange(count, dtype=torch.float64) + 0.5 - low) / (high - low) * 2 - 1
        places.append(torch.where(torch.isinf(place), 0.0, place))
    y, x = torch.meshgrid(*places, indexing="ij")
    tensor = torch.from_numpy(values.astype(np.float64))[None, None]
    return torch.nn.functional.grid_sample(tensor, torch.stack([x, y], -1)[None], align_corners=False)[0, 0].numpy()


@given(
    box=st.tuples(*[st.floats(-40, 60, width=32)] * 4),
    size=st.tuples(*[st.integers(1, 30)] * 2),
    cells=st.tuples(*[st.integers(1, 28)] * 2),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_pasting_is_sampling_at_the_pixels(box, size, cells, seed):
    box = np.array(box, np.float32)
    near = [abs(box[2 + i] - box[i]) < 1e-2 for i in (0, 1)]
    box[2:] += np.where(near, 1, 0)  # steeper than single precision can tell
    values = np.random.default_rng(seed).random(cells, dtype=np.float32)
    found = paste_mask(values, box, *size)
    assert found.shape == size
    assert found.dtype == np.float32
    assert found.flags.f_contiguous
    np.testing.assert_allclose(found, pasted_by_torch(values, box.astype(np.float64), *size), atol=2e-4)


def test_a_box_without_width_shows_the_middle_everywhere():
    values = np.random.default_rng(0).random((4, 4), dtype=np.float32)
    box = np.array([5.25, 1, 5.25, 9], np.float32)
    np.testing.assert_allclose(paste_mask(values, box, 10, 12), pasted_by_torch(values, box, 10, 12), atol=1e-5)


def test_a_box_outside_shows_nothing():
    assert not paste_mask(np.ones((4, 4), np.float32), np.array([50.0, 0, 60, 9], np.float32), 10, 12).any()
