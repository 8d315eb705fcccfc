from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visdeploy.errors import DataError
from visdeploy_training.matching import match_one_to_one


@given(rows=st.integers(0, 4), columns=st.integers(0, 4), seed=st.integers(0, 999))
def test_no_other_assignment_is_cheaper(rows: int, columns: int, seed: int):
    cost = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    first, second = match_one_to_one(cost)
    assert len(first) == min(rows, columns)
    assert first.tolist() == sorted(set(first.tolist()))
    assert len(set(second.tolist())) == len(second)
    wide = cost if rows <= columns else cost.T
    best = min(
        (
            sum(float(wide[i, j]) for i, j in enumerate(order))
            for order in permutations(range(wide.shape[1]), len(wide))
        ),
        default=0.0,
    )
    assert float(cost[first, second].sum()) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_training_is_named(value: float):
    with pytest.raises(DataError, match="diverged"):
        match_one_to_one(torch.tensor([[0.0, value]]))
