"""Candidates, suppression, and features at the places of detections, against literal computations."""

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.visdeploy_training.methods.tpr.conftest import pyramid
from visdeploy_training.methods.tpr.blending import enlarge
from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.detect import Candidates, attention_at, candidates, embeddings_at, suppress
from visdeploy_training.methods.tpr.head import Predictions
from visdeploy_training.methods.tpr.output import STRIDES

pytestmark = pytest.mark.isa

CONFIG = TPRConfig(num_classes=3, nms_pre=6, max_detections=4)
SIZES = st.sampled_from([(32, 32), (96, 160), (160, 96), (64, 288)])


def predictions_of(size: tuple[int, int], seed: int, *, classes: int = 3, step: float = 0.0) -> Predictions:
    """Return random predictions; with a step, logits are its multiples, so that scores are often equal."""
    logits, ctrness, distances, towers = (
        pyramid(*size, channels=channels, seed=seed + i) for i, channels in enumerate((classes, 1, 4, 5))
    )
    if step:
        logits, ctrness = ([(x / step).round() * step for x in levels] for levels in (logits, ctrness))
    return Predictions([x - 1 for x in logits], [4 * x.relu() for x in distances], ctrness, towers)


class Literal(NamedTuple):
    """A candidate: level, score before the square root, class, box, number of the pair."""

    level: int
    product: float
    label: int
    box: tuple[float, ...]
    cell: int


def literal_candidates(predictions: Predictions, threshold: float) -> list[Literal]:
    """List all pairs of a location and a class above the threshold."""
    found, before = [], 0
    for level, stride in enumerate(STRIDES):
        scores = (predictions.class_logits[level][0].sigmoid() * predictions.centreness[level][0].sigmoid()).tolist()
        left, top, right, bottom = predictions.distances[level][0].tolist()
        rows, columns, classes = len(left), len(left[0]), len(scores)
        for y in range(rows):
            for x in range(columns):
                cx, cy = x * stride + stride // 2, y * stride + stride // 2
                box = (
                    cx - left[y][x] * stride,
                    cy - top[y][x] * stride,
                    cx + right[y][x] * stride,
                    cy + bottom[y][x] * stride,
                )
                for label in range(classes):
                    if scores[label][y][x] > threshold:
                        cell = before + (y * columns + x) * classes + label
                        found.append(Literal(level, scores[label][y][x], label, box, cell))
        before += rows * columns * classes
    return found


@given(
    size=SIZES,
    seed=st.integers(0, 10_000),
    step=st.sampled_from([0.0, 0.5]),
    threshold=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
    limit=st.sampled_from([1, 2, 6, 50, 100_000]),
)
def test_candidates(size: tuple[int, int], seed: int, step: float, threshold: float, limit: int):
    """The best of each level above the threshold; which of equal scores take the last places is open."""
    predictions = predictions_of(size, seed, step=step)
    config = dataclasses.replace(CONFIG, score_threshold=threshold, nms_pre=limit)
    found = candidates(predictions, config)
    every = {each.cell: each for each in literal_candidates(predictions, threshold)}
    assert len(set(found.cells.tolist())) == len(found.cells)
    assert set(found.cells.tolist()) <= every.keys()
    rows = [every[cell] for cell in found.cells.tolist()]
    for level in range(len(STRIDES)):
        of_level = sorted((c.product for c in every.values() if c.level == level), reverse=True)
        assert [c.product for c in rows if c.level == level] == of_level[:limit]
    assert found.labels.tolist() == [c.label for c in rows]
    torch.testing.assert_close(found.scores, torch.tensor([math.sqrt(c.product) for c in rows]))
    torch.testing.assert_close(found.boxes, torch.tensor([c.box for c in rows]).reshape(-1, 4))


def test_a_location_may_have_several_classes_and_a_level_many_candidates():
    predictions = predictions_of((96, 160), 0)
    found = candidates(predictions, dataclasses.replace(CONFIG, score_threshold=0.01, nms_pre=1000))
    locations = found.cells // 3
    assert len(found.cells) > len(locations.unique())
    assert len(found.cells) > 500
    fewer = candidates(predictions, dataclasses.replace(CONFIG, score_threshold=0.01, nms_pre=10))
    assert len(fewer.cells) == 4 * 10 + 2 * 3, "p3 to p6 are cut; p7 has only two locations"
    assert set(fewer.cells.tolist()) < set(found.cells.tolist())


def rows_of(boxes: Tensor, scores: Tensor, labels: Tensor) -> Candidates:
    numbers = torch.arange(len(labels))
    return Candidates(scores, labels, boxes, numbers, numbers, numbers)


def overlap(a: list[float], b: list[float]) -> float:
    """Return the IoU without the width of a pixel."""
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - width * height
    return width * height / area if area else 0.0


def literal_suppression(every: Candidates, config: TPRConfig) -> list[int]:
    """Return the rows that remain: greedily by score within each class, then the best and ties for the last place."""
    boxes, labels, scores = (each.tolist() for each in (every.boxes, every.labels, every.scores))
    kept: list[int] = []
    for row in sorted(range(len(scores)), key=lambda i: -scores[i]):
        rivals = (i for i in kept if labels[i] == labels[row])
        if all(overlap(boxes[i], boxes[row]) <= config.nms_threshold for i in rivals):
            kept.append(row)
    if len(kept) <= config.max_detections:
        return kept
    last = scores[kept[config.max_detections - 1]]
    return [row for row in kept if scores[row] >= last]


WHOLE = st.integers(-40, 120)


@given(
    corners=st.lists(st.tuples(WHOLE, WHOLE, st.integers(1, 60), st.integers(1, 60)), max_size=14),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([3, 1000]),
    limit=st.integers(1, 20),
)
def test_suppression(corners: list[tuple[int, int, int, int]], seed: int, levels: int, limit: int):
    """Few levels make many scores equal. Boxes of whole pixels have no overlap so close to the threshold that rounding
    would decide."""
    generator = torch.Generator().manual_seed(seed)
    count = len(corners)
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in corners], dtype=torch.float32).reshape(count, 4)
    labels = torch.randint(0, 3, (count,), generator=generator)
    # distinct scores in the suppression itself, whose order is open otherwise
    scores = 0.1 + torch.randperm(count, generator=generator).float() / (count + 1)
    config = dataclasses.replace(CONFIG, nms_threshold=0.60001, max_detections=limit)
    every = rows_of(boxes, scores, labels)
    assert suppress(every, config).cells.tolist() == literal_suppression(every, config)
    # equal scores, which matter at the last place alone if no boxes overlap
    apart = boxes + 1000 * torch.arange(count)[:, None]
    equal = rows_of(apart, torch.randint(1, levels, (count,), generator=generator) / levels, labels)
    found = suppress(equal, config)
    assert sorted(found.cells.tolist()) == sorted(literal_suppression(equal, config))
    assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 5), (3, 5), (5, 5), (6, 6), (7, 6)])
def test_ties_for_the_last_place_are_kept(limit: int, count: int):
    scores = torch.tensor([0.5, 0.9, 0.5, 0.5, 0.3, 0.5])
    boxes = torch.tensor([0.0, 0.0, 5.0, 5.0]) + 10.0 * torch.arange(6)[:, None]
    every = rows_of(boxes, scores, torch.zeros(6, dtype=torch.int64))
    found = suppress(every, dataclasses.replace(CONFIG, max_detections=limit))
    assert found.cells[0] == 1
    assert len(found.cells) == count


def test_a_hundred_detections_and_ties():
    scores = torch.linspace(0.9, 0.5, 120)
    scores[99:105] = scores[99]
    boxes = torch.tensor([0.0, 0.0, 5.0, 5.0]) + 10.0 * torch.arange(120)[:, None]
    found = suppress(rows_of(boxes, scores, torch.zeros(120, dtype=torch.int64)), TPRConfig())
    assert sorted(found.cells.tolist()) == list(range(105))


def test_classes_do_not_suppress_each_other_beyond_the_image():
    """A box that begins left of the image, next to one that ends right of it, in the following class."""
    boxes = torch.tensor([[50.0, 50.0, 100.0, 100.0], [-50.0, -50.0, 5.0, 5.0]])
    every = rows_of(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
    assert suppress(every, CONFIG).cells.tolist() == [0, 1]


def test_no_candidates():
    predictions = predictions_of((96, 160), 0)
    none = candidates(predictions, dataclasses.replace(CONFIG, score_threshold=1.0))
    assert [len(each) for each in none] == [0] * 6
    assert [tuple(each.shape) for each in suppress(none, CONFIG)] == [(0,), (0,), (0, 4), (0,), (0,), (0,)]
    assert attention_at(predictions.towers, none, torch.zeros(7, 5, 3, 3), torch.zeros(7)).shape == (0, 7)
    assert embeddings_at(torch.zeros(6, 4, 5), none.boxes).shape == (0, 6)


@pytest.mark.parametrize("size", [(96, 160), (32, 32), (160, 288)])
def test_attention_at_all_locations_is_the_dense_convolution(size: tuple[int, int]):
    """Every location of every level, those at the borders included, where neighbours are zeros."""
    predictions = predictions_of(size, 3, classes=1)
    every = candidates(predictions, dataclasses.replace(CONFIG, score_threshold=0.0, nms_pre=10_000))
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 5, 3, 3, generator=generator), torch.randn(6, generator=generator)
    dense = torch.cat([F.conv2d(x, weight, bias, padding=1)[0].flatten(1).T for x in predictions.towers])
    assert sorted(every.cells.tolist()) == list(range(len(dense)))
    found = attention_at(predictions.towers, every, weight, bias)
    torch.testing.assert_close(found, dense[every.cells], rtol=1e-5, atol=1e-5)


def test_embeddings_at_the_centres_of_boxes():
    """Cells of eight pixels; a centre outside the map has the nearest cell."""
    features = torch.arange(4 * 5, dtype=torch.float32).view(1, 4, 5)
    centres = {
        (0.0, 0.0): (0, 0), (7.9, 0.0): (0, 0), (8.0, 7.9): (1, 0), (20.0, 12.0): (2, 1), (39.9, 31.9): (4, 3),
        (40.0, 32.0): (4, 3), (1e4, 5.0): (4, 0), (5.0, 1e4): (0, 3), (-0.1, 9.0): (0, 1), (-300.0, -8.0): (0, 0),
    }  # fmt: skip
    boxes = torch.tensor([[x - 3, y - 2, x + 3, y + 2] for x, y in centres])
    assert embeddings_at(features, boxes)[:, 0].tolist() == [y * 5 + x for x, y in centres.values()]


@pytest.mark.parametrize(("side", "size"), [(14, 56), (14, 28), (4, 8), (1, 5), (5, 5), (3, 7), (14, 9)])
def test_enlarge_is_bilinear_interpolation(side: int, size: int):
    maps = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarge(maps, size), expected, rtol=1e-5, atol=1e-5)
    assert enlarge(maps[:0], size).shape == (0, 3, size, size)


def test_embeddings_outside_the_map_take_the_nearest_cell():
    values = torch.arange(6.0).reshape(1, 2, 3)
    boxes = torch.tensor([[0.0, 0, 10, 10], [-40, -40, 0, 0], [8, 0, 16, 8], [20, 10, 90, 90], [16, 8, 24, 16]])
    assert embeddings_at(values, boxes).flatten().tolist() == [0, 0, 1, 5, 5]
    assert embeddings_at(values, boxes[:0]).shape == (0, 1)
