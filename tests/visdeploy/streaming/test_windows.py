"""Windows over videos of every length: which frames each has, and what fills that of a short video."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from visdeploy.manifest import Window
from visdeploy.streaming.windows import Feeder, steps


def windows(count, length, stride, **more):
    window = Window(mode="clip", length=length, stride=stride, **more)
    tagged = [(np.full((1, 3, 1, 1), t, np.float32), None) for t in range(count)]
    found = list(steps(Feeder("frames", window, fixed=True), tagged))
    return [(step.inputs["frames"][:, 0, 0, 0].astype(int).tolist(), step.length) for step in found]


def test_a_short_video_is_repeated_or_begins_with_copies_of_its_first_frame():
    assert windows(3, 5, 2) == [([0, 1, 2, 0, 1], 3)]
    assert windows(3, 5, 2, short_video="repeat_first_frame") == [([0, 0, 0, 1, 2], 3)]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_rule_of_windows(count, length, stride):
    stride = min(length, stride)
    found = [frames for frames, _ in windows(count, length, stride, short_video="repeat_first_frame")]
    if count < length:
        assert found == [[0] * (length - count) + list(range(count))]
        return
    starts = list(range(0, count - length + 1, stride))
    if starts[-1] + length < count:
        starts.append(count - length)
    assert found == [list(range(start, start + length)) for start in starts]


def test_the_manifest_states_the_rule_only_if_it_is_not_the_default():
    plain, first = Window(mode="clip", length=4), Window(mode="clip", length=4, short_video="repeat_first_frame")
    assert "short_video" not in plain.model_dump()
    assert Window.model_validate(plain.model_dump()) == plain
    assert Window.model_validate_json(first.model_dump_json()) == first
    with pytest.raises(ValidationError):
        Window(mode="clip", length=4, short_video="black")
