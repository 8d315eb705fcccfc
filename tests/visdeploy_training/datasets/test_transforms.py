import json
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from tests.visdeploy_training.material import square_clip as clip
from visdeploy.errors import ConfigError
from visdeploy_training.datasets.transforms import (
    Chain,
    ColourJitter,
    Crop,
    CropBetween,
    Fit,
    Flip,
    MovingWindow,
    PhotometricDistort,
    Rescale,
    Resize,
    Rotate,
)
from visdeploy_training.engine import load_recipe


def agreement(image, masks):
    """Return the IoU of the mask with the white pixels."""
    white = image.float().mean(dim=0) > 157
    both = (white & masks[0].bool()).sum()
    return float(both / (white | masks[0].bool()).sum().clamp(min=1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(20, 90), width=st.integers(20, 90))
def test_published_chain_gives_the_crop_and_masks_follow(seed, height, width):
    torch.manual_seed(seed)
    chain = Chain(
        [
            Resize(shorter=[40, 64], larger_than=(64, 96)),
            Flip(mode="frame"),
            Rotate(degrees=15),
            Crop(height=64, width=96),
        ]
    )
    for image, masks in chain(clip(2, height + 40, width + 60)):
        assert image.shape == (3, 64, 96)
        assert masks.shape == (1, 64, 96)
        assert set(masks.unique().tolist()) <= {0, 1}
        if masks.sum() > 100:
            assert agreement(image, masks) > 0.65  # a sliver at the edge of the crop is mostly border


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (60, 100, 120, (120, 200)),
        (100, 60, 120, (200, 120)),
        (60, 100, 20, (50, 70)),  # both raised to the minimum, the aspect ratio changes
        (30, 100, 60, (50, 150)),  # the longer edge is limited to 150
    ],
)
def test_resize(height, width, size, expected):
    longest = 220 if 200 in expected else 150
    resized = Resize(shorter=[size], longest=longest, larger_than=(49, 69))
    image, masks = resized(clip(1, height, width))[0]
    assert tuple(image.shape[1:]) == tuple(masks.shape[1:]) == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(20, 90), width=st.integers(20, 90), between=st.booleans())
def test_rescale_keeps_the_shape_within_its_limits(seed, height, width, between):
    torch.manual_seed(seed)
    limits = [(64, 36), (96, 48)]
    frames = Rescale(limits=limits, between=between)(clip(2, height + 40, width + 60))
    height, width = height + 40, width + 60
    rows, columns = frames[0][0].shape[1:]
    assert all(tuple(image.shape[1:]) == tuple(masks.shape[1:]) == (rows, columns) for image, masks in frames)
    assert max(rows, columns) <= 96
    assert min(rows, columns) <= 48
    assert rows / height == pytest.approx(columns / width, abs=1.01 / min(height, width))
    scales = [min(long / max(height, width), short / min(height, width)) for long, short in limits]
    sizes = [(int(height * s + 0.5), int(width * s + 0.5)) for s in scales]
    assert sizes[0] <= (rows, columns) <= sizes[1] if between else (rows, columns) in sizes


def test_rescale_draws_each_edge_on_its_own():
    """Of a square the shorter edge decides, of a strip the longer one: whole numbers, both ends included."""
    torch.manual_seed(0)
    between = Rescale(limits=[(64, 36), (67, 39)], between=True)
    assert {between(clip(1, 80, 80))[0][0].shape[1] for _ in range(60)} == {36, 37, 38, 39}
    assert {between(clip(1, 50, 320))[0][0].shape[2] for _ in range(60)} == {64, 65, 66, 67}
    pairs = Rescale(limits=[(64, 36), (67, 39)])
    assert {pairs(clip(1, 80, 80))[0][0].shape[1] for _ in range(30)} == {36, 39}


def test_rescale_resamples_as_opencv_does():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 90, 160), dtype=torch.uint8)
    masks = (torch.rand(2, 90, 160) < 0.5).to(torch.uint8)
    found, found_masks = Rescale(limits=[(71, 100)])([(tv_tensors.Image(image), tv_tensors.Mask(masks))])[0]
    expected = cv2.resize(image.permute(1, 2, 0).numpy(), (71, 40), interpolation=cv2.INTER_LINEAR)
    assert int((found.permute(1, 2, 0).int() - torch.from_numpy(expected).int()).abs().max()) <= 1
    for mask, resized in zip(masks, found_masks, strict=True):
        nearest = cv2.resize(mask.numpy(), (71, 40), interpolation=cv2.INTER_NEAREST)
        assert torch.equal(resized, torch.from_numpy(nearest))


def test_rescale_can_resample_as_pil_does():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 90, 160), dtype=torch.uint8)
    masks = (torch.rand(2, 90, 160) < 0.5).to(torch.uint8)
    frame = (tv_tensors.Image(image), tv_tensors.Mask(masks))
    smooth, same_masks = Rescale(limits=[(71, 100)], antialias=True)([frame])[0]
    expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((71, 40), Image.Resampling.BILINEAR))
    assert int((smooth.permute(1, 2, 0).int() - torch.from_numpy(expected.copy()).int()).abs().max()) <= 1
    assert torch.equal(same_masks, Rescale(limits=[(71, 100)])([frame])[0][1])


def test_scales_of_tpr_are_drawn_once_for_a_pair():
    """A long edge of 649..960 and a short edge of 360..480, the aspect ratio kept."""
    scales, sizes = Rescale(limits=[(649, 360), (960, 480)], between=True, antialias=True), set()
    for seed in range(40):
        torch.manual_seed(seed)
        (image, masks), (other, other_masks) = scales(clip(2, 90, 160))
        assert image.shape[1:] == masks.shape[1:] == other.shape[1:] == other_masks.shape[1:]
        sizes.add(tuple(image.shape[1:]))
    rows, columns = zip(*sizes, strict=True)
    assert 360 <= min(rows) < 385
    assert 455 < max(rows) <= 480
    assert max(columns) <= 960
    assert all(abs(w * 9 / 16 - h) <= 1 for h, w in sizes)


def test_flip_by_clip_is_one_decision_and_by_frame_is_not():
    def flipped(by, seed):
        torch.manual_seed(seed)
        return tuple(bool(m[0, 30, 40] != m[0, 30, 59]) or bool(m[0, 30, 69]) for _, m in Flip(mode=by)(clip(3)))

    assert {flipped("clip", s) for s in range(12)} == {(True,) * 3, (False,) * 3}
    assert any(len(set(flipped("frame", s))) == 2 for s in range(12))


def test_rotation_grows_the_canvas_and_keeps_the_object():
    torch.manual_seed(3)
    for image, masks in Rotate(degrees=15)(clip(4)):
        assert image.shape[1] >= 60
        assert image.shape[2] >= 100
        assert math.isclose(float(masks.sum()), 600, rel_tol=0.05)


def test_colour_jitter_is_the_same_in_all_frames_and_leaves_masks():
    torch.manual_seed(0)
    before, after = clip(3), ColourJitter(strength=0.4)(clip(3))
    assert not torch.equal(before[0][0], after[0][0])
    assert all(torch.equal(after[0][0], image) for image, _ in after)
    assert all(torch.equal(m, n) for (_, m), (_, n) in zip(before, after, strict=True))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), zoom=st.floats(0.3, 1.5), motion=st.floats(0, 0.4))
def test_moving_window_has_the_output_size_and_masks_follow(seed, zoom, motion):
    torch.manual_seed(seed)
    window = MovingWindow(height=64, width=96, zoom=(zoom, zoom), motion=motion, rotation=10)
    for image, masks in window(clip(3)):
        assert image.shape == (3, 64, 96)
        assert masks.shape == (1, 64, 96)
        if masks.sum() > 300:
            assert agreement(image, masks) > 0.7


def test_a_still_window_over_the_whole_picture_is_a_plain_resize():
    window = MovingWindow(height=60, width=100, zoom=(1, 1), motion=0, rotation=0, aspect=0)
    for (image, masks), (same, same_masks) in zip(window(clip()), clip(), strict=True):
        assert torch.equal(image, same)
        assert torch.equal(masks, same_masks)


def test_window_moves_smoothly():
    torch.manual_seed(1)
    frames = MovingWindow(height=60, width=100, zoom=(0.9, 0.9), motion=0.3, rotation=0, on_object=1)(clip(5))
    centres = torch.stack([m[0].nonzero().float().mean(dim=0) for _, m in frames])
    steps = (centres[1:] - centres[:-1])[1:]
    assert float((steps - steps.mean(dim=0)).abs().max()) < 3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(20, 90), width=st.integers(20, 90))
def test_crop_between_is_one_window_for_the_clip(seed, height, width):
    torch.manual_seed(seed)
    frames = CropBetween(smallest=40, largest=60)(clip(3, height + 41, width + 61))
    sizes = {(*image.shape[1:], *masks.shape[1:]) for image, masks in frames}
    assert len(sizes) == 1
    rows, columns, *mask_size = sizes.pop()
    assert mask_size == [rows, columns]
    assert 40 <= rows <= 60
    assert 40 <= columns <= 60
    assert all(torch.equal(frames[0][0], image) for image, _ in frames)
    image, masks = frames[0]
    assert torch.equal(image[0] == 255, masks[0].bool())


def test_crop_between_takes_what_a_small_frame_has():
    assert CropBetween(smallest=384, largest=600)(clip(1, 60, 100))[0][0].shape == (3, 60, 100)


def test_photometric_distortion_is_drawn_by_frame_and_leaves_masks():
    torch.manual_seed(0)
    before = clip(4)
    after = PhotometricDistort()(before)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(after, before, strict=True))
    assert len({tuple(image[:, 0, 0].tolist()) for image, _ in after}) > 1


def unchanged(**changes):
    """Return a distortion that always draws all changes, of which only these change anything but the channels."""
    neutral = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0), "probability": 1}
    return PhotometricDistort(**neutral | changes)


def distorted(pixel, distort):
    """Return the channels of one pixel in ascending order; their order is drawn, too."""
    image = tv_tensors.Image(torch.tensor(pixel, dtype=torch.uint8)[:, None, None].expand(3, 4, 5))
    ((found, _),) = distort([(image, tv_tensors.Mask(torch.zeros(1, 4, 5, dtype=torch.uint8)))])
    assert found.dtype == torch.uint8
    assert (found == found[:, :1, :1]).all()
    return sorted(found[:, 0, 0].tolist())


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"contrast": (0.5, 0.5)}, (200, 200, 200), (100, 100, 100)),
        ({"contrast": (0.5, 0.5)}, (200, 100, 100), (50, 50, 100)),
        ({"contrast": (1.5, 1.5)}, (200, 100, 10), (15, 150, 255)),
        ({"saturation": (0.5, 0.5)}, (200, 100, 0), (100, 150, 200)),
        ({"saturation": (1.5, 1.5)}, (200, 100, 50), (0, 50, 200)),
        ({"saturation": (0, 0)}, (10, 200, 100), (200, 200, 200)),
        ({"brightness": (1 + 32 / 255, 1 + 32 / 255)}, (240, 100, 0), (32, 132, 255)),
        ({"brightness": (1 - 32 / 255, 1 - 32 / 255)}, (240, 100, 0), (0, 68, 208)),
        ({"hue": (0.5, 0.5)}, (200, 100, 50), (50, 150, 200)),
        ({"hue": (1 / 6, 1 / 6)}, (200, 50, 50), (50, 200, 200)),
        ({"hue": (0.05, 0.05)}, (90, 90, 90), (90, 90, 90)),
        ({"probability": 0, "contrast": (0.5, 0.5), "hue": (0.5, 0.5)}, (200, 100, 50), (50, 100, 200)),
    ],
)
def test_photometric_distortion_is_that_of_ssd(changes, before, after):
    """Contrast is about zero; saturation is that of HSV, which keeps the largest channel."""
    for seed in range(4):
        torch.manual_seed(seed)
        assert distorted(before, unchanged(**changes)) == sorted(after)


def test_the_contrast_comes_before_or_after_the_saturation():
    """The factors commute, but not with a hue or with values beyond 255, which are limited at the end alone."""
    torch.manual_seed(0)
    distort = unchanged(brightness=(1.4, 1.4), contrast=(0.5, 0.5))
    assert distorted((200, 100, 0), distort) == [51, 101, 151]


def test_the_channels_are_permuted_half_of_the_time():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None])
    mask = tv_tensors.Mask(torch.zeros(1, 1, 1, dtype=torch.uint8))
    distort = unchanged(probability=0.5)
    drawn = [tuple(distort([(image, mask)])[0][0].flatten().tolist()) for _ in range(400)]
    assert len(set(drawn)) == 6
    assert 0.5 < drawn.count((10, 20, 30)) / 400 < 0.67  # 7 of 12


def test_published_chain_of_defvis():
    """Shorter side at most 300, longer at most 540, whatever the video; the mask stays on the object."""
    recipe = load_recipe("defvis_inst_r50_ytvis2019")
    chain = recipe.transforms(recipe.train[0]).sized(300, 540)
    for seed, (height, width) in enumerate(((360, 640), (640, 360), (300, 300))):
        torch.manual_seed(seed)
        image, masks = chain(clip(1, height, width))[0]
        assert image.shape[1:] == masks.shape[1:]
        assert min(image.shape[1:]) <= 300
        assert max(image.shape[1:]) <= 540
        assert min(image.shape[1:]) == 300 or max(image.shape[1:]) == 540


def test_a_resizing_without_a_limit_has_the_shorter_edge():
    torch.manual_seed(0)
    assert Resize(shorter=[30])(clip(1, 60, 300))[0][0].shape[1:] == (30, 150)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64)])
def test_the_network_s_input_size_stands_in_for_input(height, width):
    steps = (
        Resize(shorter=["input"], longest="input"),
        Resize(shorter=[20, "input"], longest=200, larger_than=("input", 50)),
        Crop(),
        MovingWindow(width=20),
    )
    sized = Chain(steps).sized(height, width).steps
    assert sized[0] == Resize(shorter=[64], longest=96)
    assert sized[1] == Resize(shorter=[20, 64], longest=200, larger_than=(height, 50))
    assert sized[2] == Crop(height=height, width=width)
    assert sized[3] == MovingWindow(height=height, width=20)
    assert Chain(sized).sized(7, 7).steps == sized
    for step in (steps[0], steps[2], steps[3]):
        with pytest.raises(ConfigError, match="input size"):
            step(clip(1))


def test_sizes_of_fit_are_the_published_ones(shared):
    cases = json.loads((shared / "goldens/vishv/aux.json").read_text())["resize"]
    assert cases
    for case in cases:
        frame = (
            tv_tensors.Image(torch.zeros(3, case["height"], case["width"], dtype=torch.uint8)),
            tv_tensors.Mask(torch.zeros(1, case["height"], case["width"], dtype=torch.uint8)),
        )
        ((image, masks),) = Fit(shorter=case["min_dim"], longest=case["max_dim"])([frame])
        assert [image.shape[2], image.shape[1]] == [masks.shape[2], masks.shape[1]] == case["resized"]


def test_fit_rounds_halves_to_even_and_interpolates_masks():
    """25 rows become 12.5, rounded to 12. A mask that covers half of a pixel or less leaves it empty."""
    masks = torch.zeros(2, 25, 20, dtype=torch.uint8)
    masks[0, :, 4:9], masks[1] = 1, 1
    frame = (tv_tensors.Image(torch.full((3, 25, 20), 9, dtype=torch.uint8)), tv_tensors.Mask(masks))
    ((image, found),) = Fit(shorter=10, longest=100)([frame])
    assert image.shape == (3, 12, 10)
    assert found.dtype == torch.uint8
    assert found[0].any(dim=0).nonzero().flatten().tolist() == [2, 3]
    assert bool(found[1].all())


def test_fit_resamples_as_opencv_does():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 90, 160), dtype=torch.uint8)
    frame = (tv_tensors.Image(image), tv_tensors.Mask(torch.zeros(1, 90, 160, dtype=torch.uint8)))
    ((found, _),) = Fit(shorter=40, longest=100)([frame])
    expected = cv2.resize(image.permute(1, 2, 0).numpy(), (71, 40), interpolation=cv2.INTER_LINEAR)
    assert int((found.permute(1, 2, 0).int() - torch.from_numpy(expected).int()).abs().max()) <= 1
