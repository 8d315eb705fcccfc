"""Mask resizing against PyTorch, and the decision of exact ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.resample import resize_mask


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
