import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from visdeploy_training.methods.visolo.config import VISOLOConfig
from visdeploy_training.methods.visolo.postprocess import candidate_cells, detect

pytestmark = pytest.mark.isa

CONFIG = VISOLOConfig(num_classes=4, grid=(3, 5))


def plain_detect(scores: Any, kernels: Any, features: Any, weight: Any, config: VISOLOConfig) -> Any:
    """Return cells and scores after steps 1 to 8 of the post-processing, with NaN as in the published code."""
    best, label = scores.max(dim=1)
    s = best * weight
    cells = (s >= config.score_threshold).nonzero().flatten()
    if int(cells.sum()) == 0:
        return [], []
    s, label = s[cells], label[cells]
    logits = (kernels[:, cells].T @ features.flatten(1)).reshape(-1, *features.shape[1:])
    prob = torch.nn.functional.interpolate(logits[None], scale_factor=4, mode="bilinear")[0].sigmoid()
    masks = prob > config.mask_threshold
    s = s * (prob * masks).sum((1, 2)) / masks.sum((1, 2))
    order = torch.argsort(s, descending=True, stable=True)[: config.nms_pre]
    s, label, masks, cells = s[order], label[order], masks[order].flatten(1).float(), cells[order]
    inter = masks @ masks.T
    areas = masks.sum(1)
    iou = (inter / (areas[:, None] + areas[None] - inter)).triu(1)
    d = iou * (label[:, None] == label[None]).float().triu(1)
    comp = d.max(0)[0][:, None]
    if config.nms_kernel == "gaussian":
        decay = (torch.exp(-config.nms_sigma * d**2) / torch.exp(-config.nms_sigma * comp**2)).min(0)[0]
    else:
        decay = ((1 - d) / (1 - comp)).min(0)[0]
    s = s * decay
    keep = s >= config.update_threshold
    s, cells = s[keep], cells[keep]
    order = torch.argsort(s, descending=True, stable=True)[: config.max_detections]
    return cells[order].tolist(), s[order].tolist()


def random_maps(seed: int, *, empty: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(15, 4, generator=generator) * 0.5
    features, kernels = torch.randn(3, 6, 7, generator=generator), torch.randn(3, 15, generator=generator)
    features[2] = 1.0
    kernels[2] *= 0.3
    for cell in range(3, 3 + empty):
        kernels[:, cell] = torch.tensor([0.0, 0.0, -50.0])
        scores[cell, 0] = 0.9
    return [scores, kernels, features, torch.rand(15, generator=generator)]


@pytest.mark.parametrize("empty", [0, 1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, {"nms_kernel": "linear"}, {"nms_pre": 4}, {"max_detections": 2}, {"mask_threshold": 0.6, "nms_sigma": 0.5}],
    ids=str,
)
def test_equals_plain_upstream_arithmetic(empty: int, changes: dict[str, Any]):
    config = dataclasses.replace(CONFIG, update_threshold=0.02, **changes)
    counts = []
    for seed in range(12):
        maps = random_maps(seed, empty=empty)
        maps[3].clamp_(min=0.5)
        cells, scores = plain_detect(*maps, config)
        found = detect(*maps, config)
        assert found.cells.tolist() == cells
        np.testing.assert_allclose(found.scores.numpy(), scores, atol=1e-6)
        counts.append(len(cells))
    assert set(counts) == {0} if empty == 2 else sum(c > 0 for c in counts) >= 6


def test_switch_for_frames_with_two_empty_masks():
    maps = random_maps(0, empty=2)
    maps[3].fill_(1.0)
    assert len(detect(*maps, CONFIG).cells) == 0
    kept = detect(*maps, dataclasses.replace(CONFIG, drop_frame_with_empty_masks=False))
    assert len(kept.cells) > 0
    assert not {3, 4} & set(kept.cells.tolist())
    assert (kept.overlaps.diagonal() > 0).all()


@pytest.mark.parametrize(
    ("weighted", "expected"),
    [
        ([0.5, 0.0, 0.0], []),  # cell 0 alone is not a candidate
        ([0.5, 0.1, 0.0], [0, 1]),  # >= keeps the threshold itself
        ([0.0, 0.0, 0.3], [2]),
        ([0.0, 0.0, 0.0], []),
    ],
)
def test_candidates_are_increasing_and_end_with_the_dummy(weighted: list[float], expected: list[int]):
    assert candidate_cells(torch.tensor(weighted), 0.1).tolist() == [*expected, 0]
