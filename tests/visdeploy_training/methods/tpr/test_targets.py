from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens.core import Golden
from tests.goldens.tpr_train import check_assignment, read_batch
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.tpr.output import STRIDES
from visdeploy_training.methods.tpr.targets import (
    assign,
    assign_level,
    find_positives,
    image_targets,
    locations,
    pair_targets,
    side_distances,
    single_frames,
)

RANGES = [(-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)]


@pytest.mark.isa
@pytest.mark.parametrize("variant", ["r50_sepc", "swint_routing"])
def test_golden_assignment(shared: Path, variant: str):
    golden = Golden(shared / "goldens/tpr")
    store = golden.open(f"{variant}_train.npz")
    assert store is not None
    targets, clips = read_batch(store, 2)
    positives = check_assignment(store, targets, (clips.shape[3], clips.shape[4]), background=40)
    assert all(row.ok for row in golden.report.rows)
    assert len(golden.report.rows) == 2 + 3 * len(STRIDES)
    assert len(positives.image) == len(store.arrays["train/mask_logits_pos@c16"])
    assert not [key for key in store.unused if key.startswith(("train/target", "train/assign"))]


def plain_assign(boxes: list[list[float]], shape: tuple[int, int], level: int, radius: float) -> list[int]:
    """Assign one location at a time, as FCOS describes it."""
    stride, (low, high), owners = STRIDES[level], RANGES[level], []
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = column * stride + stride // 2, row * stride + stride // 2
            best, owner = float("inf"), -1
            for k, (x0, y0, x1, y1) in enumerate(boxes):
                cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
                inside_x = max(x0, cx - radius * stride) < x < min(x1, cx + radius * stride)
                inside_y = max(y0, cy - radius * stride) < y < min(y1, cy + radius * stride)
                fits = low <= max(x - x0, y - y0, x1 - x, y1 - y) <= high
                area = (x1 - x0) * (y1 - y0)
                if inside_x and inside_y and fits and area < best:
                    best, owner = area, k
            owners.append(owner)
    return owners


# Quarters of a pixel and such radii are exact in float32, so that borders are decided alike.
quarters = st.tuples(*[st.integers(0, 800)] * 2, *[st.integers(4, 700)] * 2)


@settings(max_examples=60)
@given(
    found=st.lists(quarters, max_size=5, unique_by=lambda b: b[2] * b[3]),
    level=st.integers(0, 4),
    radius=st.sampled_from([0.5, 1.5, 2.25]),
)
def test_assignment_equals_the_plain_one(found: list[tuple[int, ...]], level: int, radius: float):
    boxes = [[x / 4, y / 4, (x + w) / 4, (y + h) / 4] for x, y, w, h in found]
    shape = (-(-192 // STRIDES[level]), -(-224 // STRIDES[level]))
    owner = assign_level(torch.tensor(boxes).reshape(-1, 4), shape, level, radius=radius)
    assert owner.tolist() == plain_assign(boxes, shape, level, radius)


def test_locations_are_the_centres_of_cells():
    assert locations((2, 3), 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


@pytest.mark.parametrize(("side", "levels"), [(40, {0}), (110, {0, 1}), (200, {1, 2}), (300, {2}), (640, {3})])
def test_the_size_of_a_box_decides_its_levels(side: int, levels: set[int]):
    box = torch.tensor([[0.0, 0, side, side]])
    shapes = [(-(-640 // stride), -(-640 // stride)) for stride in STRIDES]
    found = find_positives(assign(shapes, [box], radius=1.5))
    assert set(found.level.tolist()) == levels
    distances = side_distances(found.points, box)
    assert (distances > 0).all()


def test_the_smallest_of_two_boxes_wins():
    boxes = torch.tensor([[0.0, 0, 60, 60], [20, 20, 44, 44]])
    owner = assign_level(boxes, (8, 8), 0, radius=1.5).reshape(8, 8)
    inner = owner[2:5, 2:5].tolist()
    assert inner == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]  # the centres are (30, 30) and (32, 32)
    assert (owner >= 0).sum() == 9


def test_positives_are_sorted_and_gather_their_values():
    boxes = [torch.tensor([[0.0, 0, 60, 60]]), torch.zeros(0, 4), torch.tensor([[4.0, 0, 120, 90], [0, 0, 24, 24]])]
    shapes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    owners = assign(shapes, boxes, radius=1.5)
    assert [tuple(owner.shape) for owner in owners] == [(3, *shape) for shape in shapes]
    found = find_positives(owners)
    places = list(zip(*(each.tolist() for each in found[:4]), strict=True))
    assert places == sorted(places)
    assert set(found.image.tolist()) == {0, 2}
    maps = [torch.rand(3, 2, *shape) for shape in shapes]
    values = found.gather(maps)
    for value, (level, image, row, column) in zip(values, places, strict=True):
        assert torch.equal(value, maps[level][image, :, row, column])
    points = [locations(shape, stride).reshape(*shape, 2) for shape, stride in zip(shapes, STRIDES, strict=True)]
    for point, (level, _, row, column) in zip(found.points, places, strict=True):
        assert torch.equal(point, points[level][row, column])


def test_no_objects_at_all():
    found = find_positives(assign([(4, 4)] * 5, [torch.zeros(0, 4)], radius=1.5))
    assert all(len(each) == 0 for each in found)
    assert found.points.shape == (0, 2)
    assert found.gather([torch.rand(1, 3, 4, 4)] * 5).shape == (0, 3)


def clip_of(query: list[int], reference: list[int], count: int) -> ClipTargets:
    """Two frames; object k is a square of k + 1 pixels at (2 k, 2 k) in the frames that list it."""
    masks = torch.zeros(2, count, 24, 24, dtype=torch.bool)
    for frame, shown in enumerate((query, reference)):
        for k in shown:
            masks[frame, k, 2 * k : 3 * k + 1, 2 * k + frame : 3 * k + 1 + frame] = True
    return ClipTargets(masks, (torch.arange(count) * 10).expand(2, -1))


@pytest.mark.parametrize(
    ("query", "reference", "pids"),
    [
        ([0, 1, 2], [0, 1, 2], [1, 2, 3]),
        ([0, 2, 3], [1, 2], [0, 2, 0]),
        ([1, 3], [0, 1, 3], [2, 3]),
        ([0, 1], [], [0, 0]),
        ([], [0, 1], []),
        ([], [], []),
    ],
)
def test_pairs(query: list[int], reference: list[int], pids: list[int]):
    targets = pair_targets(clip_of(query, reference, 4))
    assert targets.pids.tolist() == pids
    assert targets.pids.dtype == targets.labels.dtype == torch.int64
    assert targets.labels.tolist() == [10 * k for k in query]
    assert targets.boxes.tolist() == [[2 * k, 2 * k, 3 * k + 1, 3 * k + 1] for k in query]
    assert targets.masks.shape == (len(query), 24, 24)
    assert targets.reference_boxes.tolist() == [[2 * k + 1, 2 * k, 3 * k + 2, 3 * k + 1] for k in reference]


@given(query=st.sets(st.integers(0, 5)), reference=st.sets(st.integers(0, 5)))
def test_a_pid_leads_to_the_same_object(query: set[int], reference: set[int]):
    clip = clip_of(sorted(query), sorted(reference), 6)
    targets = pair_targets(clip)
    for k, pid in zip(sorted(query), targets.pids.tolist(), strict=True):
        assert (pid > 0) == (k in reference)
        if pid:
            moved = targets.boxes[sorted(query).index(k)] + torch.tensor([1.0, 0, 1, 0])
            assert torch.equal(targets.reference_boxes[pid - 1], moved)


def test_single_images_have_no_reference():
    frames = [image_targets(frame) for frame in single_frames(clip_of([0, 2], [1], 3))]
    assert [frame.labels.tolist() for frame in frames] == [[0, 20], [10]]
    assert [frame.boxes.tolist() for frame in frames] == [[[0, 0, 1, 1], [4, 4, 7, 7]], [[3, 2, 5, 4]]]
    for frame in frames:
        assert frame.reference_boxes.shape == (0, 4)
        assert not frame.pids.any()
