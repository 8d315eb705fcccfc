"""Object memory: the recorded cases, a slow transcription of the rule, its bound, and saved states."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens.core import Golden
from tests.goldens.tpr_tracker import check_tracker
from visdeploy.errors import ConfigError, StreamError, VisdeployError
from visdeploy.tracking import ObjectMemory
from visdeploy.tracking.objects import box_overlaps

COUNTS = st.lists(st.integers(0, 6), min_size=2, max_size=10)
SEEDS = st.integers(0, 2**32)


def test_recorded_cases_are_reproduced(shared):
    golden = Golden(shared / "goldens" / "tpr")
    store = golden.open("tracker.npz")
    check_tracker(store)
    golden.close(store)
    assert golden.report.ok
    assert golden.report.checked == len(store.arrays) == 98


def clip(seed, counts, size=4, classes=2):
    """Detections of some frames; multiples of 1/2 make dot products exact, so that ties are real."""
    rng = np.random.default_rng(seed)
    frames = []
    for n in counts:
        corners = np.sort(rng.integers(0, 9, (n, 2, 2)), axis=1).reshape(n, 4)
        scores = -np.sort(-rng.integers(1, 9, n)) / 8
        vectors, labels = rng.integers(-3, 4, (n, size)) / 2, rng.integers(0, classes, n)
        frames.append((vectors.astype(np.float32), corners.astype(np.float32), labels, scores.astype(np.float32)))
    return frames


def iou(a, b):
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    common = sides[0] * sides[1] if min(sides) > 0 else 0.0
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (area - common) if common else 0.0


def slow_reference(frames):
    """Compute the published rule, one scalar at a time; return ids and the margin of the closest decision."""
    memory, ids, margin = [], [], np.inf
    for vectors, boxes, labels, scores in frames:
        found, best, before = [], {}, [tuple(row) for row in memory]
        for e, b, c, s in zip(vectors, boxes, labels, scores, strict=True):
            logits = np.array([0.0] + [float(e @ row[0]) for row in before])
            total = logits - np.log(np.exp(logits).sum()) + np.log(float(s))
            total += 2 * np.array([0.0] + [iou(b, row[1]) for row in before])
            total += 10 * np.array([1.0] + [float(row[2] == c) for row in before])
            column = int(total.argmax()) if before else 0
            gaps = np.abs(np.delete(total, column) - total[column])
            margin = min([margin, *gaps]) if before else margin
            if column == 0:
                found.append(len(memory))
                memory.append((e, b, c))
                continue
            row, score = column - 1, total[column]
            margin = min(margin, abs(score - best[row])) if row in best else margin
            if score > best.get(row, -100):
                best[row], memory[row] = score, (e, b, memory[row][2])
                found.append(row)
            else:
                found.append(-1)
        ids.append(found)
    return ids, margin


@settings(max_examples=150)
@given(SEEDS, COUNTS)
def test_agrees_with_the_slow_transcription(seed, counts):
    frames = clip(seed, counts)
    wanted, margin = slow_reference(frames)
    memory = ObjectMemory()
    found = [memory.update(*frame).object_ids.tolist() for frame in frames]
    if margin > 1e-4:  # otherwise rounding may decide differently
        assert found == wanted


@settings(max_examples=60)
@given(SEEDS, COUNTS)
def test_the_bound_changes_nothing_until_it_is_reached(seed, counts):
    frames = clip(seed, counts)
    unbounded, exact = ObjectMemory(max_objects=10**6), ObjectMemory(max_objects=max(1, sum(counts)))
    for frame in frames:
        a, b = unbounded.update(*frame), exact.update(*frame)
        assert a.object_ids.tolist() == b.object_ids.tolist()
        assert np.array_equal(a.scores, b.scores)
        assert not len(b.forgotten)


@settings(max_examples=100)
@given(SEEDS, COUNTS, st.integers(1, 5))
def test_memory_is_bounded_and_ids_are_never_used_again(seed, counts, bound):
    memory, forgotten, born = ObjectMemory(max_objects=bound), set(), 0
    for frame in clip(seed, counts):
        before = set(memory.objects.object_ids.tolist())
        found = memory.update(*frame)
        ids = set(found.object_ids.tolist()) - {-1}
        new = {i for i in ids if i >= born}
        assert new == set(range(born, found.num_objects))
        assert ids - new <= before
        assert not ids & forgotten
        forgotten |= set(found.forgotten.tolist())
        born = found.num_objects
        kept = memory.objects.object_ids.tolist()
        assert len(kept) <= bound
        assert kept == sorted(set(range(born)) - forgotten)


def test_the_object_matched_least_recently_is_dropped():
    vectors = np.eye(3, dtype=np.float32) * 9
    boxes, labels, scores = np.zeros((3, 4), np.float32), np.zeros(3, np.int64), np.full(3, 0.5, np.float32)
    memory = ObjectMemory(max_objects=3)
    memory.update(vectors, boxes, labels, scores)
    memory.update(vectors[[0, 2]], boxes[:2], labels[:2], scores[:2])
    found = memory.update(-vectors[:1], boxes[:1], labels[:1] + 1, scores[:1])
    assert found.forgotten.tolist() == [1]
    assert memory.objects.object_ids.tolist() == [0, 2, 3]
    found = memory.update(vectors[[1, 2]], boxes[:2], labels[:2], scores[:2])
    assert found.object_ids.tolist() == [4, 2]


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 6))
def test_the_order_of_remembered_objects_does_not_matter(seed, n):
    (vectors, boxes, labels, scores), query = clip(seed, [n, 5], size=6)
    scores, order = np.full(n, 0.5, np.float32), np.random.default_rng(seed).permutation(n)
    plain, shuffled = ObjectMemory(), ObjectMemory()
    plain.update(vectors, boxes, labels, scores)
    shuffled.update(vectors[order], boxes[order], labels[order], scores)
    a, b = plain.update(*query), shuffled.update(*query)
    columns = np.concatenate([[0], order + 1])
    np.testing.assert_allclose(a.scores[:, columns], b.scores, atol=1e-5)
    ranked = np.sort(a.scores, axis=1)
    if (ranked[:, -1] - ranked[:, -2]).min() > 1e-4:  # no tie
        back = {k: int(i) for k, i in enumerate(order)} | {-1: -1}
        assert a.object_ids.tolist() == [back.get(i, i) for i in b.object_ids.tolist()]


@settings(max_examples=60)
@given(SEEDS, COUNTS, st.integers(0, 9), st.sampled_from([3, 1024]))
def test_saved_in_the_middle_continues_alike(seed, counts, cut, bound):
    whole, resumed = ObjectMemory(max_objects=bound), ObjectMemory(max_objects=bound)
    for t, frame in enumerate(clip(seed, counts)):
        if t == cut:
            saved, resumed = resumed.state(), ObjectMemory(max_objects=bound)
            resumed.load_state(saved)
        a, b = whole.update(*frame), resumed.update(*frame)
        assert (a.object_ids.tolist(), a.forgotten.tolist()) == (b.object_ids.tolist(), b.forgotten.tolist())
    assert all(np.array_equal(v, resumed.state()[k]) for k, v in whole.state().items())


def test_a_frame_without_detections_changes_nothing():
    memory = ObjectMemory()
    first, empty = clip(3, [4, 0])
    assert memory.update(*empty).object_ids.tolist() == []
    assert memory.update(*first).object_ids.tolist() == [0, 1, 2, 3]
    before = memory.state()
    assert memory.update(*empty).num_objects == 4
    assert all(np.array_equal(before[k], v) for k, v in memory.state().items())


def test_the_label_of_an_object_never_changes_but_embedding_and_box_do():
    memory = ObjectMemory()
    old, new = np.array([[5, 0]], np.float32), np.array([[6, 1]], np.float32)
    box, score = np.array([[0, 0, 4, 4]], np.float32), np.array([0.9], np.float32)
    memory.update(old, box, np.array([1]), score)
    found = memory.update(new, box + 1, np.array([2]), score)
    assert found.object_ids.tolist() == [0]  # 30 for the embedding outweighs 10 for the class
    assert memory.objects.labels.tolist() == [1]
    assert np.array_equal(memory.objects.embeddings, new)
    assert np.array_equal(memory.objects.boxes, box + 1)


def test_first_boxes_are_remembered_only_while_nothing_is():
    memory = ObjectMemory()
    frame = clip(5, [2])[0]
    memory.update(*frame, first_boxes=frame[1] * 2)
    assert np.array_equal(memory.objects.boxes, frame[1] * 2)
    other = (frame[0] * 0, frame[1] + 50, frame[2] + 7, frame[3])
    memory.update(*other, first_boxes=frame[1] * 2)
    assert np.array_equal(memory.objects.boxes[2:], frame[1] + 50)


def test_the_memory_keeps_no_array_of_the_caller():
    frame = [each.copy() for each in clip(6, [3])[0]]
    memory = ObjectMemory()
    memory.update(*frame)
    before = memory.state()
    for array in frame:
        array[:] = 0
    assert all(np.array_equal(before[k], v) for k, v in memory.state().items())


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_match_nothing_and_disturb_nobody():
    good = np.eye(2, dtype=np.float32) * 9
    boxes, labels, scores = np.zeros((2, 4), np.float32), np.zeros(2, np.int64), np.array([0.9, 0.8], np.float32)
    memory = ObjectMemory()
    memory.update(good, boxes, labels, scores)
    bad = good.copy()
    bad[0] = np.nan
    assert memory.update(bad, boxes * np.nan, labels, scores).object_ids.tolist() == [2, 1]
    bad[0] = np.inf
    assert memory.update(bad, boxes + np.inf, labels, scores).object_ids.tolist() == [3, 1]
    assert memory.update(good, boxes, labels, scores * 0).object_ids.tolist() == [4, 5]
    assert memory.update(good, boxes, labels, scores).object_ids.tolist() == [0, 1]


def test_overlaps_of_boxes():
    first = np.array([[0, 0, 2, 2], [5, 5, 5, 9], [0, 0, np.nan, 1]], np.float32)
    second = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2]], np.float32)
    np.testing.assert_allclose(box_overlaps(first, second), [[1, 1 / 3, 0], [0, 0, 0], [0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.ones((2, 3), np.float32)}, "embeddings of 3 numbers"),
        ({0: np.ones((1, 4), np.float32)}, "cannot assign"),
        ({0: np.ones(2, np.float32)}, "cannot assign"),
        ({1: np.ones((2, 3), np.float32)}, "cannot assign"),
        ({2: np.zeros((2, 1), np.int64)}, "cannot assign"),
        ({3: np.ones(3, np.float32)}, "cannot assign"),
    ],
)
def test_an_error_leaves_the_memory_alone(change, message):
    memory, (first, second) = ObjectMemory(), clip(7, [3, 2])
    memory.update(*first)
    before = memory.state()
    with pytest.raises(StreamError, match=message):
        memory.update(*[change.get(k, each) for k, each in enumerate(second)])
    assert all(np.array_equal(before[k], v) for k, v in memory.state().items())


@pytest.mark.parametrize(
    "arguments",
    [{"max_objects": 0}, {"iou_weight": float("nan")}, {"label_weight": float("inf")}, {"score_weight": float("-inf")}],
)
def test_wrong_parameters(arguments):
    with pytest.raises(ConfigError):
        ObjectMemory(**arguments)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("counters"),
        lambda s: s.pop("boxes"),
        lambda s: s.update(counters=np.array(["a", "b"])),
        lambda s: s.update(counters=np.array([1, 2])),
        lambda s: s.update(counters=np.array([-1, 3])),
        lambda s: s.update(counters=np.array([0, 3])),
        lambda s: s.update(object_ids=np.array([0, 2, 1])),
        lambda s: s.update(object_ids=np.array([0, 1, 1])),
        lambda s: s.update(object_ids=np.array([-1, 0, 1])),
        lambda s: s.update(labels=np.zeros(4, np.int64)),
        lambda s: s.update(embeddings=s["embeddings"][:, 0]),
        lambda s: s.update(boxes=s["boxes"][:, :3]),
        lambda s: s.update(matched=np.array([0, 0, 1])),
        lambda s: s.update({k: v[:0] for k, v in s.items() if k != "counters"}),
        lambda s: s.update({k: np.repeat(v, 2, axis=0) for k, v in s.items() if k != "counters"}),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(spoil):
    memory = ObjectMemory(max_objects=4)
    memory.update(*clip(8, [3])[0])
    state, fresh = memory.state(), ObjectMemory(max_objects=4)
    spoil(state)
    with pytest.raises(VisdeployError):
        fresh.load_state(state)
    assert len(fresh.objects) == fresh.num_objects == 0


def test_a_larger_memory_than_allowed_is_refused():
    memory = ObjectMemory()
    memory.update(*clip(8, [3])[0])
    with pytest.raises(StreamError, match="too many"):
        ObjectMemory(max_objects=2).load_state(memory.state())
