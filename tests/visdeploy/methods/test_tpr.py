"""TPR's decoder: recorded clips, identities shared in a frame, clipped boxes, memory of the first frame, resumption."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens.core import Golden
from tests.goldens.tpr_results import check_frame, check_results, new_decoder
from tests.visdeploy.step_graph import fields
from visdeploy.errors import BundleError, StreamError
from visdeploy.manifest import ModelSpec, Window
from visdeploy.masks.resampling import paste_mask
from visdeploy.methods import create_decoder
from visdeploy.methods.tpr import TPRDecoder
from visdeploy.methods.tpr_boxes import pasted_mask
from visdeploy.streaming.preprocessing import Preprocessor
from visdeploy.tracking.objects import box_overlaps

SIZE = (40, 60)
WINDOW = Window(mode="online")
WHOLE = [0.0, 0.0, 60.0, 40.0]


def decoder(classes=3, preprocess=None, **options):
    """A decoder, by default of frames that are not resized."""
    names = [f"class{i}" for i in range(classes)]
    found = TPRDecoder(names, window=WINDOW, decode=options.pop("decode", {}), tracking=options.pop("tracking", {}),
                       **options)  # fmt: skip
    found.preprocessor = preprocess
    return found


def outputs(boxes, embeddings, *, labels=None, scores=None, masks=None):
    n = len(boxes)
    return {
        "scores": np.linspace(0.9, 0.5, n).astype(np.float32) if scores is None else np.array(scores, np.float32),
        "labels": np.zeros(n, np.int64) if labels is None else np.array(labels),
        "boxes": np.array(boxes, np.float32).reshape(n, 4),
        "masks": np.ones((n, 8, 8), np.float32) if masks is None else np.asarray(masks, np.float32),
        "embeddings": np.asarray(embeddings, np.float32) * 5,
    }


def random_outputs(rng, n, size=4):
    corners = np.sort(rng.uniform(-10, 70, (n, 2, 2)), axis=1).reshape(n, 4)
    masks, labels = rng.random((n, 8, 8)), rng.integers(0, 3, n)
    return outputs(corners, rng.normal(0, 0.5, (n, size)), labels=labels, masks=masks)


def empty():
    return outputs(np.zeros((0, 4)), np.zeros((0, 4)))


def step(dec, out, t=0, size=SIZE):
    return dec.step(out, index=t, timestamp=t / 10, height=size[0], width=size[1])


def between(values, axis):
    """Interleave values along an axis with the means of neighbours."""
    later = np.concatenate([values.take(range(1, values.shape[axis]), axis), values.take([-1], axis)], axis)
    pairs = np.stack([values, (values + later) / 2], axis + 1)
    shape = list(values.shape)
    shape[axis] *= 2
    return pairs.reshape(shape)


def recorded_outputs(gold, frames):
    """Outputs that lead to the recorded matching scores.

    The recording has only every eighth element of the embeddings and every second row and column of the masks. The
    embeddings here have one element of their own each, and earlier ones such that all dot products are those recorded.
    """
    total = sum(len(gold[f"f{t}/det/scores"]) for t in range(frames))
    memory, memory_boxes, memory_labels, done, found = [], None, None, 0, []
    for t in range(frames):
        boxes, scores, labels = (gold[f"f{t}/det/{name}"] for name in ("boxes_network", "scores", "classes"))
        vectors = np.zeros((len(scores), total))
        if memory:
            rest = gold[f"f{t}/track/comp_scores"] - np.log(scores)[:, None]
            rest[:, 1:] -= 2 * box_overlaps(boxes, memory_boxes) + 10 * (labels[:, None] == memory_labels)
            rest[:, 0] -= 10
            logits = rest[:, 1:] - rest[:, :1]
            known = np.array(memory)[:, :done]
            vectors[:, :done] = np.linalg.lstsq(known, logits.T.astype(np.float64), rcond=None)[0].T
        for row, vector in enumerate(vectors):
            vector[done + row] = 8.0
        for object_id, vector in zip(gold[f"f{t}/det/obj_ids"], vectors, strict=True):
            if object_id >= 0:
                memory[object_id:] = [vector, *memory[object_id + 1 :]]
        done += len(scores)
        memory_boxes, memory_labels = (gold[f"f{t}/track/memory_{name}_after"] for name in ("boxes", "labels"))
        masks = between(between(gold[f"f{t}/det/mask_prob@hw2"][:, 0], 1), 2)
        found.append(
            {"scores": scores, "labels": labels, "boxes": boxes, "masks": masks, "embeddings": np.float32(vectors)}
        )
    return found


@pytest.mark.parametrize("variant", ["r50_sepc", "swint_routing"])
def test_recorded_clips(shared, variant):
    golden = Golden(shared / "goldens" / "tpr")
    store = golden.open(f"{variant}.npz")
    entry = golden.manifest if variant == golden.manifest["variant"] else golden.manifest["variants"][variant]
    (clip,) = entry["clips"]
    dec = new_decoder(entry["config"], clip, classes=40)
    frames = recorded_outputs(store.arrays, clip["frames"])
    results = [check_frame(store, t, out, dec, clip) for t, out in enumerate(frames)]
    check_results(store, dec, results, clip)
    approximate = ("masks_packed", "mask_areas", "segmentations")  # the recorded probabilities are not complete
    wrong = [row for row in golden.report.rows if not row.ok and not row.key.endswith(approximate)]
    assert wrong == []
    assert len(golden.report.rows) > 100
    assert not [key for key in store.unused if "/final/" in key or "/track/" in key]
    pixels = sum(len(store.arrays[f"f{t}/final/obj_ids"]) for t in range(len(results))) * clip["height"] * clip["width"]
    assert sum(row.error for row in golden.report.rows if row.key.endswith("masks_packed")) < 0.01 * pixels


def test_two_detections_with_one_identity_are_one_instance():
    dec = decoder()
    step(dec, outputs([WHOLE], [[1, 0]], labels=[2], scores=[0.6]))
    left, right = [0, 0, 20, 40], [40, 0, 60, 40]
    # the second matches better, because it has the class of the object
    (instance,) = step(dec, outputs([left, right], [[1, 0], [1, 0]], labels=[1, 2], scores=[0.9, 0.3]), 1)
    assert dec.last.assignment.object_ids.tolist() == [0, 0]
    assert instance.mask.box == (40, 0, 60, 40)
    assert (instance.track_id, instance.label, instance.score) == (0, 2, pytest.approx(0.6))
    (summary,) = dec.summaries()
    assert (summary.presence, summary.score, summary.label) == (2, pytest.approx(0.6), 2)
    assert summary.class_scores == pytest.approx((0, 0.2, 0.4))


def test_the_worse_of_two_later_detections_is_dropped():
    dec = decoder()
    step(dec, outputs([WHOLE], [[1, 0]]))
    frame = step(dec, outputs([WHOLE, WHOLE], [[1, 0], [1, 0]], scores=[0.9, 0.4]), 1)
    assert dec.last.assignment.object_ids.tolist() == [0, -1]
    assert [i.track_id for i in frame] == [0]
    assert dec.summaries()[0].score == pytest.approx(0.9)


def test_the_label_is_the_most_frequent_class_and_the_lowest_after_a_tie():
    dec = decoder(tracking={"label_weight": 0})
    labels = [step(dec, outputs([WHOLE], [[3, 0]], labels=[c]), t).instances[0].label for t, c in enumerate([2, 1, 1])]
    assert labels == [2, 1, 1]


def test_masks_are_pasted_into_the_clipped_box():
    values = np.random.default_rng(1).random((8, 8)).astype(np.float32)
    (instance,) = step(decoder(), outputs([[-30, -10, 30, 50]], [[1, 0]], masks=values[None]))
    assert np.array_equal(instance.mask.decode(), paste_mask(values, np.array([0, 0, 30, 40]), *SIZE) >= 0.5)


def test_a_probability_on_the_threshold_is_inside():
    for box in itertools.product((0, 0.1, 1 / 3), (0, 0.7), (50.3, 60), (37.9, 40)):
        mask = pasted_mask(np.full((56, 56), 0.5, np.float32), np.float32(box), threshold=0.5, height=40, width=60)
        inside = mask.decode()[2:-4, 2:-11]
        assert inside.all()


def test_boxes_outside_the_frame_are_seen_by_the_tracker_alone():
    dec = decoder(keep_tracks=True)
    outside = [[-20, 0, -5, 40], [0, 45, 10, 60], [5, 5, 5, 9], WHOLE]
    frame = step(dec, outputs(outside, np.eye(4)))
    assert [i.track_id for i in frame] == [3]
    assert dec.memory.num_objects == 4
    assert dec.last.kept.tolist() == [3]
    assert [s.track_id for s in dec.summaries()] == [3]
    frame = step(dec, outputs([WHOLE] * 4, np.eye(4)), 1)
    assert [i.track_id for i in frame] == [0, 1, 2, 3]
    assert [s.presence for s in dec.summaries()] == [1, 1, 1, 2]


def test_an_empty_mask_counts_for_its_track_but_is_no_instance():
    dec = decoder()
    assert len(step(dec, outputs([WHOLE], [[1, 0]], masks=np.zeros((1, 8, 8))))) == 0
    assert [s.presence for s in dec.summaries()] == [1]


@pytest.mark.parametrize(("switch", "size"), [(True, (40, 60)), (False, (20, 30))])
def test_only_the_boxes_of_the_first_frame_are_remembered_at_the_original_size(switch, size):
    spec = ModelSpec(**_fields(tracking={"rescale_first_frame_memory": switch}))
    dec = create_decoder(spec)
    step(dec, empty())
    step(dec, outputs([[-4, 2, 20, 25]], np.eye(1, 4)), 1)
    height, width = size
    clipped = [0, 2 * height / 20, 20 * width / 30, height] if switch else [-4, 2, 20, 25]
    assert dec.memory.objects.boxes.tolist() == [pytest.approx(clipped)]
    step(dec, outputs([[-4, 2, 20, 25]], np.eye(1, 4)), 2)
    assert dec.memory.objects.boxes.tolist() == [[-4, 2, 20, 25]]


def _fields(**changes):
    chosen = {k: v for k, v in fields().items() if k in ModelSpec.model_fields}
    preprocessing = {"channel_order": "bgr", "mean": [0, 0, 0], "std": [1, 1, 1], "resize": "shortest_edge",
                     "height": 20, "width": 32, "pad_divisor": 32}  # fmt: skip
    return chosen | {"method": "tpr", "decode": {}, "tracking": {}, "preprocessing": preprocessing} | changes


def test_boxes_are_scaled_by_the_size_without_padding():
    dec = create_decoder(ModelSpec(**_fields()))
    assert isinstance(dec, TPRDecoder)
    assert isinstance(dec.preprocessor, Preprocessor)
    (instance,) = step(dec, outputs([[3, 5, 9, 10]], np.eye(1, 4)))  # the network sees 20 x 30 pixels of 32 x 32
    assert dec.last.boxes.tolist() == [[6, 10, 18, 20]]
    assert instance.mask.box == (6, 10, 18, 20)


def test_empty_frames():
    dec = decoder()
    assert len(step(dec, empty())) == 0
    assert dec.last.assignment.object_ids.tolist() == []
    step(dec, outputs([WHOLE], np.eye(1, 4)), 1)
    before = dec.state()
    assert len(step(dec, empty(), 2)) == 0
    assert all(np.array_equal(before[k], v) for k, v in dec.state().items())


def test_bookkeeping_is_bounded_unless_tracks_are_kept():
    limits = {"max_objects": 5}
    bounded, collecting = (decoder(60, tracking=limits, keep_tracks=keep) for keep in (False, True))
    for t in range(30):  # two classes not seen before, so two new objects
        out = outputs([WHOLE, WHOLE], np.zeros((2, 2)), labels=[2 * t, 2 * t + 1])
        assert step(bounded, out, t) == step(collecting, out, t)
    assert bounded.memory.num_objects == len(collecting.summaries()) == 60
    assert [s.track_id for s in bounded.summaries()] == [55, 56, 57, 58, 59]
    assert sum(array.nbytes for array in bounded.state().values()) < 10_000


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 5), min_size=2, max_size=7), st.integers(0, 6), st.booleans())
def test_saved_in_the_middle_continues_alike(seed, counts, cut, keep):
    rng, options = np.random.default_rng(seed), {"keep_tracks": keep, "tracking": {"max_objects": 6}}
    whole, resumed = decoder(**options), decoder(**options)
    for t, n in enumerate(counts):
        if t == cut:
            saved, resumed = resumed.state(), decoder(**options)
            resumed.load_state(saved)
        out = random_outputs(rng, n)
        assert step(whole, out, t) == step(resumed, out, t)
    assert whole.summaries() == resumed.summaries()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: o.pop("embeddings"), "no output 'embeddings'"),
        (lambda o: o.update(scores=o["scores"].astype(np.float64)), "output 'scores' is malformed"),
        (lambda o: o.update(labels=o["labels"][:1]), "output 'labels' is malformed"),
        (lambda o: o.update(labels=o["labels"] + 3), "output 'labels' is malformed"),
        (lambda o: o.update(labels=o["labels"] - 9), "output 'labels' is malformed"),
        (lambda o: o.update(boxes=o["boxes"][:, :3]), "output 'boxes' is malformed"),
        (lambda o: o.update(masks=o["masks"][:, 0]), "output 'masks' is malformed"),
        (lambda o: o.update(embeddings=o["embeddings"][:, :3]), "output 'embeddings' is malformed"),
    ],
)
def test_malformed_outputs_change_nothing(spoil, message):
    rng, dec = np.random.default_rng(0), decoder()
    step(dec, random_outputs(rng, 3))
    before, out = dec.state(), random_outputs(rng, 3)
    spoil(out)
    with pytest.raises(BundleError, match=message):
        step(dec, out, 1)
    assert all(np.array_equal(before[k], v) for k, v in dec.state().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decode": {"threshold": 0.5}}, r"decode\.threshold"),
        ({"decode": {"mask_threshold": 1}}, r"decode\.mask_threshold"),
        ({"tracking": {"iou_weight": float("inf")}}, r"tracking\.iou_weight"),
        ({"tracking": {"score_weight": "much"}}, r"tracking\.score_weight"),
        ({"tracking": {"max_objects": 0}}, r"tracking\.max_objects"),
        ({"tracking": {"rescale_first_frame_memory": "perhaps"}}, r"tracking\.rescale_first_frame_memory"),
    ],
)
def test_wrong_manifest_fields_are_named(changes, message):
    with pytest.raises(BundleError, match=message):
        create_decoder(ModelSpec(**_fields(**changes)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("votes.total"),
        lambda s: s.pop("memory.counters"),
        lambda s: s.update({"votes.counts": s["votes.counts"][:, :2]}),
        lambda s: s.update({"votes.counts": s["votes.counts"] * 0}),
        lambda s: s.update({"votes.counts": -s["votes.counts"]}),
        lambda s: s.update({"votes.presence": s["votes.presence"] * 0}),
        lambda s: s.update({"votes.presence": s["votes.presence"] + 5}),
        lambda s: s.update({"votes.track_ids": s["votes.track_ids"] + 1}),
        lambda s: s.update({"votes.track_ids": s["votes.track_ids"] * 0}),
        lambda s: s.update({"votes.total": np.array(["a", "b", "c"])}),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(spoil):
    dec, fresh = decoder(), decoder()
    step(dec, outputs([WHOLE] * 3, np.eye(3)))
    state = dec.state()
    spoil(state)
    with pytest.raises(StreamError):
        fresh.load_state(state)
    assert fresh.summaries() == []
    assert fresh.memory.num_objects == 0
