"""One-to-one matching of predictions and objects with the Hungarian method."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from visdeploy.errors import DataError


@torch.no_grad()
def match_one_to_one(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the one-to-one pairs with the minimum total cost; rows or columns in excess stay unmatched.

    Args:
        cost: `[n, k]` float.

    Returns:
        Rows in ascending order and their columns, each `[min(n, k)]` int64, on the device of `cost`.

    Raises:
        DataError: A cost is not finite.
    """
    if not bool(torch.isfinite(cost).all()):
        raise DataError(
            "the matching cost has NaN or infinite values",
            hint="The training diverged: lower the learning rate, or start from an earlier checkpoint.",
        )
    rows, columns = linear_sum_assignment(cost.double().cpu().numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
