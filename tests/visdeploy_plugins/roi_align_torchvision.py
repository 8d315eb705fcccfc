"""Reference for multi-level RoI align: torchvision's RoI align on each level."""

import numpy as np
import torch
import torchvision

from tests.visdeploy_plugins.roi_align_support import features, settings_of
from tests.visdeploy_plugins.rounding import Sums
from tests.visdeploy_plugins.support import Arrays
from visdeploy_plugins.torch_ops.multi_level_roi_align_reference import roi_levels


def tensors_of(case: Arrays, *, dtype: torch.dtype | None = None, grad: bool = False):
    """Return features, rois and batch indices as the PyTorch operator takes them."""
    maps = [torch.from_numpy(each.copy()) for each in features(case)]
    if dtype:
        maps = [each.to(dtype) for each in maps]
    rois = torch.from_numpy(case["rois"].copy())
    rois = rois.double() if maps[0].dtype == torch.float64 else rois.float()
    return [each.requires_grad_(grad) for each in maps], rois, torch.from_numpy(case["batch_indices"].copy())


def torchvision_align(maps, rois, indices, *, output_size, spatial_scales, sampling_ratio, finest_scale):
    """Return the same by torchvision: RoI align on each level, for the boxes of that level."""
    levels = roi_levels(rois, len(maps), finest_scale)
    output = maps[0].new_zeros((len(rois), maps[0].shape[1], *output_size))
    numbered = torch.cat([indices[:, None].to(rois.dtype), rois], 1)
    for level, (feature, scale) in enumerate(zip(maps, spatial_scales, strict=True)):
        chosen = (levels == level).nonzero()[:, 0]
        part = torchvision.ops.roi_align(feature, numbered[chosen], output_size, scale, sampling_ratio, True)
        output = output.index_put((chosen,), part)
    return output


def exact_sums(case: Arrays) -> Sums:
    """Return the output in float64 and what bounds its rounding.

    With s by s samples a bin, a term is a neighbour's value times two distances, divided by the number of samples; it
    is added to at most four neighbours of each. A sample's position comes out of about a dozen operations on numbers of
    at most twice the size of the box's coordinates in cells; from cell to cell a value changes by at most twice the
    largest one, along either axis.
    """
    maps, rois, indices = tensors_of(case, dtype=torch.float64)
    exact, terms = (
        torchvision_align(change, rois, indices, **settings_of(case)).numpy()
        for change in (maps, [each.abs() for each in maps])
    )
    reach = np.abs(case["rois"].astype(np.float64)).max(1, initial=0) * float(case["scales"].max()) + 1
    largest = max(np.abs(each).max() for each in features(case))
    moved = np.broadcast_to((24 * reach * 2 * 2 * largest)[:, None, None, None], exact.shape)
    return Sums(exact, terms, 4 * int(case["ratio"]) ** 2 + 8, moved=moved)


def border_distance(case: Arrays) -> np.ndarray:
    """Return the least distance of a sample of each box from the border where samples become 0, in cells."""
    rois = torch.from_numpy(case["rois"])
    levels = roi_levels(rois, len(case["scales"]), float(case["finest"])).numpy()
    distance = np.full(len(rois), np.inf)
    for roi, (level, box) in enumerate(zip(levels, case["rois"].astype(np.float64), strict=True)):
        cells = box * float(case["scales"][level]) - 0.5
        for axis in (0, 1):
            size = case[f"feature{level}"].shape[3 - axis]
            count = int(case["output_size"][1 - axis])
            step = (cells[2 + axis] - cells[axis]) / count
            samples = int(case["ratio"]) or max(1, int(np.ceil(step)))
            positions = cells[axis] + step * (np.arange(count * samples) + 0.5) / samples
            distance[roi] = min(distance[roi], np.abs(positions + 1).min(), np.abs(positions - size).min())
    return distance
