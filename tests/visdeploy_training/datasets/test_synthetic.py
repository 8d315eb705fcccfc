"""Synthetic clips from images, and the changes of pixels of which they are made."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from tests.visdeploy_training.material import square_clip
from visdeploy_training.datasets.transforms import SyntheticClip, find_transform
from visdeploy_training.datasets.transforms.pixels import add_brightness, add_hue_and_saturation, motion_blur

STILL = {"rotation": 0.0, "shift": 0.0, "perspective": 0.0, "blur": 0.0, "brightness": 0, "colour": 0}


def noise(rows=24, columns=30):
    return torch.randint(0, 256, (3, rows, columns), dtype=torch.uint8)


def plain(clip):
    return [(image.as_subclass(torch.Tensor), masks.as_subclass(torch.Tensor)) for image, masks in clip]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 5))
def test_masks_follow_the_image(seed, frames):
    torch.manual_seed(seed)
    found = plain(SyntheticClip(blur=0.0, brightness=20)(square_clip(frames, 60, 100)))
    assert len(found) == frames
    for image, masks in found:
        assert image.shape == (3, 60, 100)
        assert (image.dtype, masks.dtype) == (torch.uint8, torch.uint8)
        assert set(masks.unique().tolist()) <= {0, 1}
        if masks.sum() > 200:
            white = image.float().mean(0) > 157
            both = (white & masks[0].bool()).sum() / (white | masks[0].bool()).sum()
            assert both > 0.8


def test_exactly_one_frame_is_the_original_and_it_can_be_anywhere():
    places = set()
    for seed in range(24):
        torch.manual_seed(seed)
        source = square_clip(3, 60, 100)
        found = plain(SyntheticClip()(source))
        same = [
            t for t, (i, _) in enumerate(found) if torch.equal(i, source[0][0]) or torch.equal(i, source[0][0].flip(-1))
        ]
        assert len(same) == 1
        places |= set(same)
    assert places == {0, 1, 2}


def test_the_flip_is_one_decision():
    """Without other changes, all frames are the image, or all are its mirror image."""
    kinds = set()
    for seed in range(16):
        torch.manual_seed(seed)
        source = square_clip(4)
        found = plain(SyntheticClip(**STILL)(source))
        flipped = torch.equal(found[0][0], source[0][0].flip(-1))
        for image, masks in found:
            assert torch.equal(image, source[0][0].flip(-1) if flipped else source[0][0])
            assert torch.equal(masks, source[0][1].flip(-1) if flipped else source[0][1])
        kinds.add(flipped)
    assert kinds == {True, False}


def test_the_last_object_counts_where_objects_overlap():
    masks = torch.zeros(3, 20, 30, dtype=torch.uint8)
    masks[0, 2:10, 2:12] = 1
    masks[1, 4:12, 6:20] = 1
    found = plain(SyntheticClip(**STILL)([(tv_tensors.Image(noise(20, 30)), tv_tensors.Mask(masks))] * 2))
    for _, planes in found:
        assert planes.flatten(1).sum(1).tolist() == [80 - 6 * 6, 8 * 14, 0]
        assert int(planes.sum(0).max()) == 1


def test_pixels_without_source_have_the_fill_colour_and_no_object():
    torch.manual_seed(1)
    image, masks = torch.full((3, 40, 60), 255, dtype=torch.uint8), torch.ones(1, 40, 60, dtype=torch.uint8)
    options = STILL | {"rotation": 12.0, "shift": 0.1, "blur": 1.0, "fill": (10, 20, 30)}
    found = plain(SyntheticClip(**options)([(tv_tensors.Image(image), tv_tensors.Mask(masks))] * 8))
    bare = 0
    for changed, planes in found:
        outside = planes[0] == 0
        bare += int(outside.sum())
        assert torch.equal(changed[:, outside], torch.tensor([[10], [20], [30]]).expand(3, int(outside.sum())))
        assert int(changed[0, ~outside].min()) > 10
    assert bare > 1000


def test_shifts_have_one_share_for_both_sides():
    """Without other changes, the object moves by the same share of rows and columns, up to a tenth."""
    torch.manual_seed(0)
    found = plain(SyntheticClip(**STILL | {"shift": 0.1})(square_clip(20, 100, 200)))
    moves = []
    for _, masks in found:
        rows, columns = masks[0].nonzero(as_tuple=True)
        across = float(columns.float().mean())
        across = 199 - across if across > 100 else across
        moves.append((float(rows.float().mean()) - 29.5, across - 44.5))
    assert max(abs(y) for y, _ in moves) <= 10.5
    assert max(abs(y) for y, _ in moves) > 4
    assert all(abs(abs(x) - 2 * abs(y)) <= 1.5 for y, x in moves)


def test_perspective_moves_corners_inward():
    """The image fills the frame: no pixel is without source, and the object grows."""
    torch.manual_seed(0)
    source = square_clip(12, 60, 100)
    found = plain(SyntheticClip(**STILL | {"perspective": 0.1})(source))
    assert all(int(image.min()) == 60 for image, _ in found)
    areas = [int(masks.sum()) for _, masks in found]
    assert sum(area >= 590 for area in areas) >= 11
    assert max(areas) > 700


def test_only_the_first_frame_counts():
    clip = square_clip(3)
    clip[1:] = [(tv_tensors.Image(noise(60, 100)), mask) for _, mask in clip[1:]]
    for image, _ in SyntheticClip(**STILL)(clip):
        assert set(image.unique().tolist()) == {60, 255}


def test_the_name_in_recipes():
    assert find_transform("synthetic_clip") is SyntheticClip


@pytest.mark.parametrize("value", [-40, -5, 0, 17, 40])
def test_brightness(value):
    torch.manual_seed(0)
    image = noise()
    assert torch.equal(add_brightness(image, value).int(), (image.int() + value).clamp(0, 255))


@pytest.mark.parametrize("value", [-5, -1, 0, 3, 5, 100])
def test_hue_and_saturation_are_those_of_opencv_on_exchanged_channels(value):
    torch.manual_seed(0)
    image = noise()
    found = add_hue_and_saturation(image, value)
    exchanged = image.flip(0).permute(1, 2, 0).numpy().astype(np.float32) / 255
    hsv = cv2.cvtColor(exchanged, cv2.COLOR_RGB2HSV)  # degrees, shares
    hsv[..., 0] = (hsv[..., 0] + 180 * value / 255) % 360
    hsv[..., 1] = (hsv[..., 1] + value / 255).clip(0, 1)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    expected = torch.from_numpy(expected * 255).permute(2, 0, 1).flip(0)
    assert float((found.float() - expected).abs().max()) <= 0.51


def test_colour_changes_without_a_value_change_nothing():
    image = noise()
    assert int((add_hue_and_saturation(image, 0).int() - image.int()).abs().max()) == 0


@pytest.mark.parametrize(("angle", "line"), [(0.0, (9, 1)), (math.pi / 2, (1, 9)), (math.pi, (9, 1))])
def test_motion_blur_spreads_a_point_to_a_line(angle, line):
    image = torch.zeros(3, 21, 21, dtype=torch.uint8)
    image[:, 10, 10] = 255
    found = motion_blur(image, 9, angle)[0]
    rows, columns = (found > 5).nonzero(as_tuple=True)
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == line
    assert int(found.sum()) == pytest.approx(255, abs=9)


@given(size=st.sampled_from([9, 11]), angle=st.floats(0, 6.3), value=st.integers(0, 255))
def test_motion_blur_leaves_a_plain_image(size, angle, value):
    image = torch.full((3, 12, 14), value, dtype=torch.uint8)
    assert torch.equal(motion_blur(image, size, angle), image)
