"""Assignment of grid cells to instances in training."""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy_training.clip import ClipTargets

__all__ = ["ClipTargets", "assign_cells", "assign_clip", "tracking_target"]


def assign_cells(masks: Tensor, grid: tuple[int, int], *, eps: float = 0.2) -> Tensor:
    """Assign an instance to each grid cell of one frame.

    The cells of an instance are those in a region around its centre of mass. The size of the region is a fraction of
    the largest coordinates of the mask, measured from the image origin as in the published implementation. Where
    regions overlap, a cell is assigned to the instance with the nearest centre, or to the first of equal ones.

    Args:
        masks: `[K, H, W]` bool.
        grid: Rows and columns of the grid.
        eps: Size of the region as a fraction of the extent.

    Returns:
        `[rows * columns]` int64, index of the instance, -1 where there is none.
    """
    rows, columns = grid
    height, width = masks.shape[-2:]
    owner = torch.full((rows, columns), -1, dtype=torch.int64, device=masks.device)
    nearest = torch.full((rows, columns), torch.inf, dtype=torch.float64, device=masks.device)
    step_y, step_x = height / rows, width / columns
    centre_y = (torch.arange(rows, device=masks.device, dtype=torch.float64) + 0.5) * step_y
    centre_x = (torch.arange(columns, device=masks.device, dtype=torch.float64) + 0.5) * step_x
    for k, (cy, cx, bottom, right) in enumerate(_extents(masks)):
        if bottom == 0:
            continue
        top, low = _span(cy, eps / 2 * bottom, step_y, rows)
        left, far = _span(cx, eps / 2 * right, step_x, columns)
        distance = (centre_y[:, None] - cy) ** 2 + (centre_x[None, :] - cx) ** 2
        window = (slice(top, low + 1), slice(left, far + 1))
        closer = distance[window] < nearest[window]
        owner[window] = torch.where(closer, k, owner[window])
        nearest[window] = torch.where(closer, distance[window], nearest[window])
    return owner.flatten()


def _extents(masks: Tensor) -> list[tuple[float, float, float, float]]:
    """Return for each mask the centre of mass y and x, the largest y + 1 and x + 1; zeros for an empty mask."""
    in_rows, in_columns = masks.sum(dim=2, dtype=torch.float64), masks.sum(dim=1, dtype=torch.float64)
    y = torch.arange(masks.shape[1], device=masks.device, dtype=torch.float64)
    x = torch.arange(masks.shape[2], device=masks.device, dtype=torch.float64)
    area = in_rows.sum(dim=1).clamp(min=1)
    bottom = ((in_rows > 0) * (y + 1)).amax(dim=1)
    right = ((in_columns > 0) * (x + 1)).amax(dim=1)
    found = torch.stack([in_rows @ y / area, in_columns @ x / area, bottom, right], dim=1)
    return [(a, b, c, d) for a, b, c, d in found.tolist()]


def _span(centre: float, half: float, step: float, cells: int) -> tuple[int, int]:
    """Return the first and the last cell (inclusive) of `centre -+ half`, clipped to the grid."""
    return max(0, int((centre - half) // step)), min(cells - 1, int((centre + half) // step))


def assign_clip(targets: ClipTargets, grid: tuple[int, int], *, eps: float = 0.2) -> Tensor:
    """Apply `assign_cells` to every frame: `[T, rows * columns]` int64."""
    return torch.stack([assign_cells(frame, grid, eps=eps) for frame in targets.masks])


def tracking_target(first: Tensor, second: Tensor) -> Tensor:
    """Return which cells of two frames are assigned to the same instance.

    Args:
        first: `[N]` int64, instance of each cell of the first frame, -1 for none.
        second: The same for the second frame.

    Returns:
        `[N, N]` bool; rows are cells of the first frame, columns of the second.
    """
    return (first[:, None] == second[None, :]) & (first >= 0)[:, None]
