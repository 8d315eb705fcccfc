import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from visdeploy_training.matrix_nms import descending_order, matrix_nms_decay, pairwise_iou


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0]), min_size=1, max_size=40))
def test_descending_order_is_a_stable_sort(values: list[float]):
    found = descending_order(torch.tensor(values))
    assert found.tolist() == np.argsort(-np.array(values), kind="stable").tolist()


def plain_decay(iou: np.ndarray, labels: np.ndarray, kernel: str, sigma: float) -> np.ndarray:
    """Compute the decay with loops, including NaN, as in the published implementation."""
    n = len(labels)
    d = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            d[i, j] = iou[i, j] * (labels[i] == labels[j])
    comp = np.array([max(d[k, i] for k in range(n)) for i in range(n)])
    out = np.zeros(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        for j in range(n):
            if kernel == "gaussian":
                ratios = [np.exp(-sigma * d[i, j] ** 2) / np.exp(-sigma * comp[i] ** 2) for i in range(n)]
            else:
                ratios = [np.float64(1 - d[i, j]) / np.float64(1 - comp[i]) for i in range(n)]
            out[j] = np.nan if np.isnan(ratios).any() else min(ratios)
    return out


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 8), st.just(12))),
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.sampled_from(["gaussian", "linear"]),
    st.sampled_from([0.5, 2.0]),
)
def test_decay_equals_the_plain_loops(masks: np.ndarray, labels: list[int], kernel: str, sigma: float):
    flat = torch.from_numpy(masks).double()
    classes = torch.tensor(labels[: len(masks)])
    iou = pairwise_iou(flat @ flat.T)
    found = matrix_nms_decay(iou, classes, kernel=kernel, sigma=sigma).numpy()
    expected = plain_decay(iou.numpy(), classes.numpy(), kernel, sigma)
    # where upstream has NaN (and so drops the candidate), the factor is 0
    np.testing.assert_allclose(found, np.nan_to_num(expected, nan=0.0), atol=1e-12)


def test_iou_of_masks():
    masks = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).float()
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(pairwise_iou(masks @ masks.T), expected)
