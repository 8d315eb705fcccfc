"""Which grid cells answer for which instance: spec section 11.5."""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy_training.clip import ClipTargets

__all__ = ["ClipTargets", "assign_cells", "assign_clip", "tracking_target"]


def assign_cells(masks: Tensor, grid: tuple[int, int], *, eps: float = 0.2) -> Tensor:
    """Row of the instance that each cell of one frame answers for.

    The region of an instance is centred on its centre of mass; its size is a share of the largest coordinates
    of the mask, measured from the image origin as upstream does (quirk Q3). Where regions meet, the
    instance with the nearer centre wins, the earlier one on a tie.

    Args:
        masks: `[K, H, W]` bool.
        grid: Rows and columns.
        eps: Share of the extent that is positive.

    Returns:
        `[rows * columns]` int64, -1 where there is no instance.
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
    """Per mask: centre of mass y and x, then largest y + 1 and largest x + 1; zeros for an empty mask."""
    in_rows, in_columns = masks.sum(dim=2, dtype=torch.float64), masks.sum(dim=1, dtype=torch.float64)
    y = torch.arange(masks.shape[1], device=masks.device, dtype=torch.float64)
    x = torch.arange(masks.shape[2], device=masks.device, dtype=torch.float64)
    area = in_rows.sum(dim=1).clamp(min=1)
    bottom = ((in_rows > 0) * (y + 1)).amax(dim=1)
    right = ((in_columns > 0) * (x + 1)).amax(dim=1)
    found = torch.stack([in_rows @ y / area, in_columns @ x / area, bottom, right], dim=1)
    return [(a, b, c, d) for a, b, c, d in found.tolist()]


def _span(centre: float, half: float, step: float, cells: int) -> tuple[int, int]:
    """First and last cell of `centre -+ half`, both inclusive, clipped to the grid."""
    return max(0, int((centre - half) // step)), min(cells - 1, int((centre + half) // step))


def assign_clip(targets: ClipTargets, grid: tuple[int, int], *, eps: float = 0.2) -> Tensor:
    """`assign_cells` for every frame: `[T, rows * columns]` int64."""
    return torch.stack([assign_cells(frame, grid, eps=eps) for frame in targets.masks])


def tracking_target(first: Tensor, second: Tensor) -> Tensor:
    """Cells of two frames that answer for the same instance.

    Args:
        first: `[N]` int64, owner of each cell, -1 for none.
        second: The same in the other frame.

    Returns:
        `[N, N]` bool, rows are cells of the first frame.
    """
    return (first[:, None] == second[None, :]) & (first >= 0)[:, None]
