"""Counted mixtures, against the index lists of the published implementation."""

import json
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.visdeploy_training.material import CLASSES, coco_set, ytvis_set
from visdeploy.errors import ConfigError
from visdeploy_training.datasets import ClipPart, CountedBatches, mixture_indices, read_records
from visdeploy_training.datasets.mixture import shares
from visdeploy_training.datasets.transforms import Chain


def test_indices_are_the_published_ones(shared):
    cases = json.loads((shared / "goldens/vishv/aux.json").read_text())["mixture"]
    assert cases
    for case in cases:
        found = mixture_indices(case["lengths"], case["weights"], case["total"])
        assert found == [tuple(pair) for pair in case["mapping"]]


@given(
    parts=st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 1)), min_size=1, max_size=4),
    total=st.integers(1, 300),
)
def test_items_of_a_set_are_used_equally_often(parts, total):
    lengths, ratios = zip(*parts, strict=True)
    found = mixture_indices(lengths, ratios, total)
    assert abs(len(found) - total) <= len(parts) / 2
    for part, (length, count) in enumerate(zip(lengths, shares(ratios, total), strict=True)):
        uses = Counter(item for p, item in found if p == part)
        assert sum(uses.values()) == count
        assert all(0 <= item < length for item in uses)
        assert not uses or max(uses.values()) - min((uses[i] for i in range(length)), default=0) <= 1


@pytest.mark.parametrize(("lengths", "ratios"), [([3], [0]), ([3, 3], [1, -1]), ([], []), ([0, 3], [0.5, 0.5])])
def test_impossible_mixtures_are_refused(lengths, ratios):
    with pytest.raises(ConfigError, match=r"ratios|empty"):
        mixture_indices(lengths, ratios, 10)


def test_a_set_with_ratio_0_is_not_used():
    assert mixture_indices([0, 2], [0, 1], 3) == [(1, 0), (1, 1), (1, 0)]


@pytest.fixture
def parts(tmp_path):
    videos = read_records(*ytvis_set(tmp_path / "v", videos=2, length=6), layout="ytvis", classes=CLASSES)
    images = read_records(*coco_set(tmp_path / "i"), layout="coco", classes=CLASSES)
    return [
        ClipPart(videos, Chain(), clip_length=2, sampling="span", span=(2, 2), clips=9),
        ClipPart(images, Chain(), clip_length=2, sampling="span"),
    ]


def test_batches_use_every_sample_once(parts):
    sampler = CountedBatches(parts, [0.75, 0.25], 2, total=12, seed=3)
    assert len(parts[0].items) == 9
    batches = list(islice(sampler, 6))
    keys = [key for batch in batches for key in batch]
    assert Counter(key.part for key in keys) == {0: 9, 1: 3}
    assert Counter(key.record for key in keys if key.part == 1) == {0: 1, 1: 1, 2: 1}
    assert len({key.seed for key in keys}) == 12
    assert batches == list(islice(CountedBatches(parts, [0.75, 0.25], 2, total=12, seed=3), 6))
    assert [key.part for key in keys] != sorted(key.part for key in keys)


def test_processes_share_the_samples_and_runs_continue(parts):
    def keys(**options):
        return [k for b in islice(CountedBatches(parts, [0.75, 0.25], 1, total=12, **options), 6) for k in b]

    whole = [k for b in islice(CountedBatches(parts, [0.75, 0.25], 1, total=12), 12) for k in b]
    assert keys(rank=0, world=2) == whole[0::2]
    assert keys(rank=1, world=2) == whole[1::2]
    assert keys(start=6) == whole[6:]


def test_samples_are_drawn_again_in_another_order(parts):
    found = [k for b in islice(CountedBatches(parts, [0.75, 0.25], 1, total=12), 24) for k in b]
    first, second = ([(k.part, k.record) for k in half] for half in (found[:12], found[12:]))
    assert Counter(first) == Counter(second)
    assert first != second


def test_too_few_samples_are_refused(parts):
    with pytest.raises(ConfigError, match="too few samples"):
        CountedBatches(parts, [1, 0], 1, total=1, world=2)
