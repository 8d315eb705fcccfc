"""States that two engines carry: integers are equal, real numbers within a share of the largest."""

import numpy as np
import pytest

from visdeploy.manifest import StateSpec, Tolerance
from visdeploy.parity.state import StateMeter

SPECS = [
    StateSpec(input="mem", output="next_mem", dtype="float32", shape=[4, 3]),
    StateSpec(input="frame", output="next_frame", dtype="int64", shape=[4]),
]
STATE = {"mem": np.arange(12, dtype=np.float32).reshape(4, 3), "frame": np.array([0, 5, 8, 9])}


def compare(**changes):
    meter = StateMeter(SPECS, Tolerance())
    meter.update(STATE, STATE, 0)
    meter.update(STATE, {**STATE, **changes}, 1)
    return {each.name: each for each in meter.results()}


def test_equal_states_pass():
    found = compare(mem=STATE["mem"] + np.float32(1e-3))
    assert {name: (each.passed, each.compared) for name, each in found.items()} == {
        "next_mem": (True, 24), "next_frame": (True, 8),
    }  # fmt: skip
    assert found["next_mem"].limit == pytest.approx(1e-3 * 11)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"mem": STATE["mem"][::-1]}, "next_mem"),  # another frame in a slot
        ({"mem": np.where(STATE["mem"] == 3, np.nan, STATE["mem"])}, "next_mem"),
        ({"mem": STATE["mem"][:3]}, "next_mem"),
        ({"frame": np.array([0, 5, 8, 10])}, "next_frame"),
        ({"frame": STATE["frame"].astype(np.int32)}, "next_frame"),
    ],
)
def test_another_state_does_not(changes, broken):
    found = compare(**changes)
    assert [name for name, each in found.items() if not each.passed] == [broken]
    assert found[broken].frame == 1


def test_without_a_comparison_there_is_no_result():
    assert StateMeter(SPECS, Tolerance()).results() == []
