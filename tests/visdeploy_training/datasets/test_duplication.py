"""Duplication of the only object of a clip."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy_training.datasets import Sample, duplicate_object
from visdeploy_training.datasets.duplication import Extent, direction, moved

HEIGHT, WIDTH = 40, 60


def sample(boxes, objects=1, ignore=False):
    """Frames with one box of a pattern each on black; a box is x, y, width, height, or None."""
    masks = torch.zeros(len(boxes), objects, HEIGHT, WIDTH, dtype=torch.bool)
    for t, box in enumerate(boxes):
        if box is not None:
            x, y, w, h = box
            masks[t, :, y : y + h, x : x + w] = True
    pattern = torch.randint(100, 256, (len(boxes), 3, HEIGHT, WIDTH), dtype=torch.uint8)
    images = torch.where(masks[:, :1], pattern, 0)
    hidden = torch.ones(len(boxes), HEIGHT, WIDTH, dtype=torch.bool) if ignore else None
    return Sample(images, masks, torch.full((objects,), 4), hidden)


@settings(max_examples=60, deadline=None)
@given(x=st.integers(1, 40), y=st.integers(1, 20), w=st.integers(3, 18), h=st.integers(3, 18), seed=st.integers(0, 999))
def test_the_copy_is_pasted_beside_the_object(x, y, w, h, seed):
    torch.manual_seed(seed)
    before = sample([(x, y, w, h), (x, y, w, h)], ignore=True)
    after = duplicate_object(before)
    if after is before:
        return
    assert after.labels.tolist() == [4, 4]
    rest, copy = after.masks.unbind(1)
    assert not bool((rest & copy).any())
    assert torch.equal(rest, before.masks[:, 0] & ~copy)
    assert bool((after.images.amax(1)[copy] > 0).all())
    unchanged = (~copy)[:, None].expand_as(after.images)
    assert torch.equal(after.images[unchanged], before.images[unchanged])
    assert torch.equal(after.ignore, ~copy)
    for mask in copy:
        if bool(mask.any()):
            rows, columns = (mask.any(dim=axis).nonzero().flatten() for axis in (1, 0))
            shift = abs(int(columns[0]) - x), abs(int(rows[0]) - y)
            if columns[0] > 0 and columns[-1] < WIDTH - 1 and rows[0] > 0 and rows[-1] < HEIGHT - 1:
                assert min(round(0.75 * w), 18) <= shift[0] <= min(w, 18)
                assert shift[1] <= min(round(0.25 * h), 12)
                assert int(mask.sum()) == w * h


def test_the_copy_is_shifted_or_reflected():
    """Away from borders, both occur; distances differ between frames."""
    kinds, different = set(), False
    for seed in range(30):
        torch.manual_seed(seed)
        before = sample([(20, 12, 14, 14)] * 2)
        after = duplicate_object(before)
        patches = []
        for t in (0, 1):
            rows, columns = (after.masks[t, 1].any(dim=axis).nonzero().flatten() for axis in (1, 0))
            patches.append((int(rows[0]), int(columns[0])))
        different |= patches[0] != patches[1]
        y, x = patches[0]
        patch, own = after.images[0, :, y : y + 14, x : x + 14], before.images[0, :, 12:26, 20:34]
        assert torch.equal(patch, own) or torch.equal(patch, own.flip(-1))
        kinds.add((torch.equal(patch, own), x > 20, y >= 12))
    assert different
    assert {kind[0] for kind in kinds} == {kind[1] for kind in kinds} == {True, False}


@pytest.mark.parametrize(
    "before",
    [
        sample([(5, 5, 9, 9)], objects=2),
        sample([(0, 5, WIDTH, 9)]),  # both borders are touched
        sample([(0, 5, 9, 9), (WIDTH - 9, 5, 9, 9)]),
        sample([None, None]),
    ],
)
def test_clips_without_a_single_object_that_can_move_stay(before):
    assert duplicate_object(before) is before


def test_frames_without_the_object_have_no_copy():
    torch.manual_seed(0)
    after = duplicate_object(sample([(20, 12, 8, 8), None]))
    assert after.masks.flatten(2).any(2).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("extents", "expected"),
    [
        ([(0, 50)], {-1}),  # large, at the low border: outward
        ([(50, 100)], {1}),
        ([(3, 13)], {1}),  # small, near the low border: inward
        ([(0, 13)], {1}),
        ([(85, 95)], {-1}),
        ([(40, 50)], {-1, 1}),
        ([(0, 30)], {-1, 1}),  # neither large nor small
        ([(5, 55)], {-1, 1}),  # large, but not at the border
        ([(0, 10), (90, 100)], {None}),
        ([(3, 13), (87, 97)], {-1, 1}),  # small, equally near to both
        ([(3, 13), (60, 70)], {1}),
    ],
)
def test_directions(extents, expected):
    torch.manual_seed(0)
    assert {direction([Extent(*e) for e in extents], 100) for _ in range(20)} == expected


@pytest.mark.parametrize(
    ("dx", "dy", "visible"),
    [(0, 0, 12), (2, -1, 12), (8, 0, 9), (-3, 0, 6), (0, 9, 0), (0, -4, 8), (0, 5, 8), (-99, 0, 0)],
)
def test_parts_outside_are_cut_off(dx, dy, visible):
    planes = torch.zeros(1, 10, 12)
    planes[0, 3:6, 1:5] = torch.arange(1, 13).view(3, 4)
    found = moved(planes, Extent(1, 5), Extent(3, 6), dx, dy, flip=False)
    assert int((found > 0).sum()) == visible
    assert torch.equal(
        moved(planes, Extent(1, 5), Extent(3, 6), 0, 0, flip=True)[0, 3:6, 1:5], planes[0, 3:6, 1:5].flip(1)
    )
