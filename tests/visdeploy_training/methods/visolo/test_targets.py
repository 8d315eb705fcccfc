import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.errors import DataError
from visdeploy_training.methods.visolo.targets import ClipTargets, assign_cells, assign_clip, tracking_target


def plain_assign(masks: np.ndarray, grid: tuple[int, int], eps: float) -> list[int]:
    """Compute the targets of the published implementation step by step."""
    (rows, cols), (h, w) = grid, masks.shape[1:]
    owner, centres = [-1] * (rows * cols), {}
    for k, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        if not len(ys):
            continue
        cy, cx, eh, ew = ys.mean(), xs.mean(), ys.max() + 1, xs.max() + 1
        centres[k] = (cy, cx)
        first_row, last_row = (math.floor((cy + sign * eps / 2 * eh) / (h / rows)) for sign in (-1, 1))
        first_col, last_col = (math.floor((cx + sign * eps / 2 * ew) / (w / cols)) for sign in (-1, 1))
        for r in range(max(0, first_row), min(rows - 1, last_row) + 1):
            for c in range(max(0, first_col), min(cols - 1, last_col) + 1):
                y, x = (r + 0.5) * h / rows, (c + 0.5) * w / cols
                old = owner[r * cols + c]
                if old >= 0:
                    before = (y - centres[old][0]) ** 2 + (x - centres[old][1]) ** 2
                    if not (y - cy) ** 2 + (x - cx) ** 2 < before:
                        continue
                owner[r * cols + c] = k
    return owner


boxes = st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(0, 20), st.integers(0, 20))


@settings(deadline=None, max_examples=60)
@given(st.lists(boxes, max_size=5), st.sampled_from([(12, 21), (6, 8), (1, 1)]))
def test_assignment_equals_the_specification(found: list[tuple[int, ...]], grid: tuple[int, int]):
    masks = np.zeros((len(found), 32, 48), bool)
    for mask, (y, x, h, w) in zip(masks, found, strict=True):
        mask[y : y + h, x : x + w] = True
    owner = assign_cells(torch.from_numpy(masks), grid)
    assert owner.tolist() == plain_assign(masks, grid, 0.2)


def test_every_visible_instance_alone_gets_a_cell():
    masks = torch.zeros(1, 1, 32, 48, dtype=torch.bool)
    masks[0, 0, 31, 47] = True
    owner = assign_clip(ClipTargets(masks, torch.zeros(1, 1, dtype=torch.int64)), (12, 21))
    assert (owner == 0).any()


def test_no_instances():
    assert (assign_cells(torch.zeros(0, 8, 8, dtype=torch.bool), (2, 2)) == -1).all()


def test_tracking_target_joins_cells_of_one_instance():
    first, second = torch.tensor([-1, 0, 1, 1]), torch.tensor([1, -1, 0, 2])
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[1, 2] = expected[2, 0] = expected[3, 0] = True
    assert torch.equal(tracking_target(first, second), expected)


@pytest.mark.parametrize(("masks", "labels"), [((3, 2, 8, 8), (3, 1)), ((3, 8, 8), (3, 8)), ((2, 2, 8, 8), (3, 2))])
def test_malformed_targets_are_refused(masks: tuple[int, ...], labels: tuple[int, ...]):
    with pytest.raises(DataError):
        ClipTargets(torch.zeros(masks, dtype=torch.bool), torch.zeros(labels, dtype=torch.int64))
