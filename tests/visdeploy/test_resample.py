"""Mask resizing decides every pixel as PyTorch does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.resample import resize_mask

torch = pytest.importorskip("torch")


def by_torch(mask, height, width):
    tensor = torch.from_numpy(mask[None, None].astype(np.float32))
    resized = torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)
    return resized[0, 0].numpy() >= 0.5


def shapes(kind, height, width, rng):
    if kind == "noise":
        return rng.random((height, width)) > 0.5
    mask = np.zeros((height, width), bool)
    mask[rng.integers(height) :, rng.integers(width) :] = True
    return mask


@pytest.mark.parametrize("size", [(360, 640), (720, 1280), (1280, 720), (480, 854), (352, 624), (704, 1248), (101, 57)])
@pytest.mark.parametrize("kind", ["noise", "box"])
def test_equal_to_torch_at_the_method_size(size, kind):
    mask = shapes(kind, 352, 624, np.random.default_rng(sum(size)))
    found = resize_mask(mask.astype(np.uint8), *size)
    assert np.array_equal(found, by_torch(mask, *size))
    assert found.flags.f_contiguous


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 4), st.sampled_from(["noise", "box"]), st.integers(0, 2**32))
def test_equal_to_torch_at_any_size(sizes, kind, seed):
    height, width, new_height, new_width = sizes
    mask = shapes(kind, height, width, np.random.default_rng(seed))
    assert np.array_equal(resize_mask(mask, new_height, new_width), by_torch(mask, new_height, new_width))
