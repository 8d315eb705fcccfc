"""Association: the recorded cases exactly, a slow transcription of the rules, and the bound of the lost list."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.errors import ConfigError, StreamError, VisdeployError
from visdeploy.tracking import AffinityTracker, sigmoid

CASES = ("gaps", "starts_empty", "never", "dense")


@pytest.fixture(scope="module")
def cases(shared):
    with np.load(shared / "goldens" / "visolo" / "tracker_cases.npz") as data:
        return dict(data)


@pytest.mark.parametrize("case", CASES)
def test_recorded_cases_are_reproduced_exactly(cases, case):
    query, reference = cases[f"{case}/q"], cases[f"{case}/r"]
    tracker = AffinityTracker()
    for t in range(int(cases[f"{case}/T"])):
        cells = cases.get(f"{case}/f{t}/cell", np.zeros(0, np.int64))
        found = tracker.update(cells, query[t][cells], reference[t][cells])
        assert found.track_ids.tolist() == cases.get(f"{case}/f{t}/track_id", np.zeros(0)).tolist()
        assert found.lost.tolist() == cases[f"{case}/f{t}/lost_before_append"].tolist()
        assert found.num_tracks == cases[f"{case}/f{t}/num_tracks"]
        assert found.previous_matched.tolist() == [i in found.track_ids for i in _previous_ids(cases, case, t)]


def _previous_ids(cases, case, t):
    return [] if t == 0 else cases.get(f"{case}/f{t - 1}/track_id", np.zeros(0)).tolist()


def slow_reference(frames, threshold):
    """Compute the tracking rules of the published implementation, one scalar at a time."""
    previous, lost, born, ids = [], [], 0, []
    for t, (query, reference) in enumerate(frames):
        given_ids: list[int | None] = [None] * len(query)
        matched = set()
        for i, r in enumerate(reference):
            ranked = sorted(range(len(previous)), key=lambda p, r=r: -float(sigmoid(previous[p][1] @ r)))
            for p in ranked:
                if sigmoid(previous[p][1] @ r) >= threshold and previous[p][0] not in given_ids:
                    given_ids[i] = previous[p][0]
                    matched.add(p)
                    break
        for record in reversed(lost):
            gone = set()
            for i, r in enumerate(reference):
                if given_ids[i] is None:
                    by_affinity = lambda e, r=r, record=record: -float(sigmoid(record[e][1] @ r))  # noqa: E731
                    for e in sorted(range(len(record)), key=by_affinity):
                        if sigmoid(record[e][1] @ r) >= threshold and e not in gone:
                            given_ids[i] = record[e][0]
                            gone.add(e)
                            break
            record[:] = [entry for e, entry in enumerate(record) if e not in gone]
        lost = [record for record in lost if record]
        for i in range(len(query)):
            if given_ids[i] is None:
                given_ids[i], born = born, born + 1
        unmatched = [entry for p, entry in enumerate(previous) if p not in matched]
        if unmatched:
            lost.append(unmatched)
        previous = list(zip(given_ids, query, strict=True))
        ids.append(given_ids)
        assert len(set(given_ids)) == len(given_ids), t
    return ids


def clip(seed, counts, size=4):
    # multiples of 1/2 make every sum exact, so no rounding can part the two implementations; ties are real ties
    rng = np.random.default_rng(seed)
    make = lambda n: (rng.integers(-4, 5, (n, size)) / 2).astype(np.float32)  # noqa: E731
    return [(make(n), make(n)) for n in counts]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 6), min_size=1, max_size=12), st.sampled_from([0.02, 0.1, 0.9]))
def test_agrees_with_the_slow_transcription(seed, counts, threshold):
    frames = clip(seed, counts)
    tracker = AffinityTracker(threshold=threshold)
    fast = [tracker.update(np.arange(len(q)), q, r).track_ids.tolist() for q, r in frames]
    assert fast == slow_reference(frames, threshold)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 5), min_size=2, max_size=10), st.integers(0, 10))
def test_saved_in_the_middle_continues_alike(seed, counts, cut):
    frames = clip(seed, counts)
    whole, resumed = AffinityTracker(), AffinityTracker()
    for k, (q, r) in enumerate(frames):
        if k == cut:
            saved, resumed = resumed.state(), AffinityTracker()
            resumed.load_state(saved)
        a, b = whole.update(np.arange(len(q)), q, r), resumed.update(np.arange(len(q)), q, r)
        assert (a.track_ids.tolist(), a.lost.tolist()) == (b.track_ids.tolist(), b.lost.tolist())


def test_the_lost_list_is_bounded_and_drops_the_oldest():
    tracker = AffinityTracker(max_lost=3)
    forgotten = []
    for _ in range(6):  # opposite vectors: nobody is ever found again, two births per frame
        q = np.ones((2, 2), np.float32) * 9
        forgotten += tracker.update(np.arange(2), q, -q).forgotten.tolist()
    assert tracker.num_tracks == 12
    assert forgotten == list(range(7))
    assert sorted(tracker.live.tolist()) == [7, 8, 9, 10, 11]


def test_an_error_leaves_the_tracks_alone():
    tracker = AffinityTracker()
    good = np.eye(2, dtype=np.float32) * 5
    tracker.update(np.arange(2), good, good)
    before = tracker.state()
    with pytest.raises(StreamError, match="vectors of 3 numbers"):
        tracker.update(np.arange(2), np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    assert all(np.array_equal(before[k], v) for k, v in tracker.state().items())
    assert tracker.update(np.arange(2), good, good).track_ids.tolist() == [0, 1]


def test_nan_vectors_match_nothing():
    tracker = AffinityTracker()
    nan = np.full((1, 2), np.nan, np.float32)
    tracker.update(np.arange(1), nan, nan)
    assert tracker.update(np.arange(1), nan, nan).track_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"threshold": 1.5}, ConfigError), ({"threshold": float("nan")}, ConfigError), ({"max_lost": -1}, ConfigError)],
)
def test_wrong_parameters(arguments, error):
    with pytest.raises(error):
        AffinityTracker(**arguments)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("counters"),
        lambda s: s.pop("lost.query"),
        lambda s: s.update({"previous.cells": np.zeros(5, np.int64)}),
        lambda s: s.update({"previous.track_ids": np.array([7, 8])}),
        lambda s: s.update({"previous.track_ids": np.array([1, 1])}),
        lambda s: s.update({"counters": np.array(["a", "b"])}),
    ],
)
def test_a_damaged_state_is_refused(spoil):
    tracker = AffinityTracker()
    q = np.eye(2, dtype=np.float32)
    tracker.update(np.arange(2), q, q)
    state = tracker.state()
    spoil(state)
    with pytest.raises(VisdeployError):
        AffinityTracker().load_state(state)
