import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from visdeploy_training.boxes import mask_boxes, overlap, to_centres, to_corners


def random_boxes(seed: int, count: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([corners.amin(1), corners.amax(1) + 0.01], dim=1)


@given(seed=st.integers(0, 999))
def test_overlap_agrees_with_torchvision(seed: int):
    a, b = random_boxes(seed, 4), random_boxes(seed + 1000, 3)
    areas = overlap(a[:, None], b)
    torch.testing.assert_close(areas.intersection / areas.union, torchvision.ops.box_iou(a, b))
    generalised = areas.intersection / areas.union - (areas.hull - areas.union) / areas.hull
    torch.testing.assert_close(generalised, torchvision.ops.generalized_box_iou(a, b))


@given(seed=st.integers(0, 999))
def test_conversions_undo_each_other(seed: int):
    boxes = random_boxes(seed, 5)
    torch.testing.assert_close(to_corners(to_centres(boxes)), boxes)
    torch.testing.assert_close(to_centres(boxes), torchvision.ops.box_convert(boxes, "xyxy", "cxcywh"))


@given(seed=st.integers(0, 999), height=st.integers(1, 9), width=st.integers(1, 9))
def test_boxes_of_masks_are_tight(seed: int, height: int, width: int):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(2, 3, height, width, generator=generator) > 0.8
    boxes = mask_boxes(masks)
    for mask, box in zip(masks.flatten(0, 1), boxes.flatten(0, 1).tolist(), strict=True):
        ys, xs = mask.nonzero(as_tuple=True)
        wanted = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0, 0, 0, 0]
        assert box == [float(v) for v in wanted]
