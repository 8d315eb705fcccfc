"""Sampling of clips with a span, and their number per video."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support import rectangle
from visdeploy.errors import DataError
from visdeploy_training.datasets import ClipPart, ClipRecord, InstanceRecord, span_frames
from visdeploy_training.datasets.sampling import choose_clips, clip_counts
from visdeploy_training.datasets.transforms import Chain


@given(
    length=st.integers(1, 60), count=st.integers(1, 16), low=st.integers(1, 20), more=st.integers(0, 8),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_frames_of_a_span_are_in_order_and_nearly_equally_far(length, count, low, more, seed):
    torch.manual_seed(seed)
    frames = span_frames(length, count, span=(low, low + more))
    assert len(frames) == count
    assert frames == sorted(frames)
    assert 0 <= frames[0] <= frames[-1] < length
    if count > 1:
        assert min(low, length - 1) <= frames[-1] - frames[0] <= low + more
        steps = np.diff(frames)
        assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    ("length", "count", "span", "expected"),
    [
        (9, 8, (8, 8), [0, 1, 2, 3, 5, 6, 7, 8]),
        (17, 8, (16, 16), [0, 2, 5, 7, 9, 11, 14, 16]),
        (4, 3, (3, 3), [0, 2, 3]),  # 1.5 is rounded to the even 2
        (2, 3, (1, 1), [0, 0, 1]),  # 0.5 is rounded to the even 0
        (3, 4, (16, 16), [0, 1, 1, 2]),  # the span is limited by the video
        (1, 4, (8, 8), [0, 0, 0, 0]),
    ],
)
def test_frames_between_whole_numbers_are_rounded_to_even(length, count, span, expected):
    assert span_frames(length, count, span=span) == expected


def test_spans_and_starts_are_uniform():
    torch.manual_seed(0)
    found = Counter((f[-1] - f[0], f[0]) for f in (span_frames(6, 2, span=(3, 4)) for _ in range(600)))
    assert set(found) == {(3, 0), (3, 1), (3, 2), (4, 0), (4, 1)}
    assert 250 < sum(v for (span, _), v in found.items() if span == 3) < 350


@pytest.mark.parametrize(
    ("lengths", "clips", "expected"),
    [([10, 30], 8, [2, 6]), ([10, 30], 7, [2, 6]), ([1, 999], 10, [1, 10]), ([5, 5], 0, [1, 1])],
)
def test_counts_follow_the_length_and_are_rounded_up(lengths, clips, expected):
    assert clip_counts(lengths, clips) == expected


def test_the_requested_number_of_clips_is_chosen():
    """2, 3 and 4 clips for the shares 7/6, 14/6 and 21/6: random ones are left out. Ten frames are too few."""
    lengths = [10, 12, 1, 24, 36]
    found = choose_clips(lengths, 7, shortest=9)
    assert len(found) == 7 + 1  # and the image
    assert found == sorted(found)
    uses = Counter(found)
    assert (uses[0], uses[2]) == (0, 1)
    assert all(uses[i] <= n for i, n in ((1, 2), (3, 3), (4, 4)))
    assert len({tuple(choose_clips(lengths, 7, shortest=9, seed=s)) for s in range(9)}) > 1


def test_without_a_request_there_are_as_many_clips_as_frames():
    assert Counter(choose_clips([12, 24], None, shortest=8)) == {0: 12, 1: 24}
    assert choose_clips([1, 1], 5, shortest=8) == [0, 1]


def test_videos_that_are_too_short_are_refused():
    with pytest.raises(DataError, match=r"at most 9.*span plus one, 9.*smaller span"):
        choose_clips([9, 8], None, shortest=8)


def test_a_data_set_with_spans():
    """The default span is the length of a clip."""
    track = tuple(rectangle(4, 4, 0, 0, 2, 2) for _ in range(12))
    record = ClipRecord("v", 4, 4, tuple(range(12)), (InstanceRecord(0, track),))
    short = ClipRecord("s", 4, 4, tuple(range(5)), (InstanceRecord(0, track[:5]),))
    part = ClipPart([short, record], Chain(), clip_length=4, sampling="span", clips=3)
    assert part.items == [(1, None)] * 3
    part = ClipPart([short, record], Chain(), clip_length=4, sampling="span", span=(2, 9), clips=6)
    assert Counter(i for i, _ in part.items)[0] in (1, 2)
