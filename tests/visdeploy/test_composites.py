"""Identities across windows on real clips with several objects that hide each other, enter and leave.

The decoder gets the true masks as a network would give them: at a quarter of its input size, as noisy logits, in slots
that every window orders anew, among slots that show nothing. What is left is the work of windows and stitching.
"""

from collections import defaultdict

import cv2
import numpy as np
import pytest

from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.manifest import Window
from visdeploy.methods.defvis import DefVISDecoder
from visdeploy.results import Track, VideoResult
from visdeploy.streaming.windows import Feeder, steps

ROWS, COLUMNS, SLOTS = 40, 72, 6


@pytest.fixture(scope="module")
def truth(shared):
    return read_annotations(shared / "data" / "mini_vis_composite" / "instances.json")


def outputs_of(step, objects, classes, rng):
    """Return the outputs of an ideal network for a window: [slots, frames, ...]."""
    scores = np.zeros((SLOTS, step.length, classes + 1), np.float32)
    scores[..., 0] = 0.9
    logits = np.full((SLOTS, step.length, ROWS, COLUMNS), -6, np.float32)
    for slot, (label, masks) in zip(rng.permutation(SLOTS), objects, strict=False):
        scores[slot] = 0
        scores[slot, :, label + 1] = rng.uniform(0.6, 0.9, step.length)
        for t in range(step.length):
            if (mask := masks[step.first + t]) is not None:
                share = cv2.resize(mask.decode().astype(np.float32), (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
                logits[slot, t] = 12 * (share - 0.5) + rng.normal(0, 0.5, share.shape)
    return {"class_scores": scores, "mask_logits": logits}


def predicted(video, truth, length, overlap, **stitching):
    rng = np.random.default_rng(video.id)
    names = [category.name for category in truth.categories]
    labels = {category.id: k for k, category in enumerate(truth.categories)}
    objects = [(labels[a.category_id], a.masks) for a in truth.annotations if a.video_id == video.id]
    window = Window(mode="clip", length=length, stride=length - overlap)
    decoder = DefVISDecoder(names, decode={}, tracking=stitching, window=window, keep_tracks=True)
    feeder = Feeder("frames", window, fixed=False)
    frames = []
    for step in steps(feeder, ((np.zeros((1, 3, 1, 1), np.float32), None) for _ in range(video.length))):
        given = outputs_of(step, objects, len(names), rng)
        frames += decoder.decode(given, step, height=video.height, width=video.width)
    frames += decoder.finish()
    assert [frame.index for frame in frames] == list(range(video.length))
    masks = defaultdict(dict)
    for frame in frames:
        for instance in frame:
            masks[instance.track_id][frame.index] = instance.mask
    tracks = [Track(s.track_id, s.label, s.score, masks=masks[s.track_id]) for s in decoder.summaries()]
    return VideoResult(video.name, video.height, video.width, video.length, tuple(names), tracks)


def scored(truth, length, overlap, **stitching):
    results = [predicted(video, truth, length, overlap, **stitching) for video in truth.videos]
    ids = {video.name: video.id for video in truth.videos}
    scores = evaluate(results, truth, metrics=("clear", "identity"), video_ids=ids)
    return results, scores["clear"]["detection_average"], scores["identity"]["detection_average"]


@pytest.mark.parametrize(("length", "overlap"), [(12, 4), (8, 4), (8, 3), (6, 2), (5, 1)])
def test_no_identity_is_lost_or_swapped_at_a_border(truth, caplog, length, overlap):
    with caplog.at_level("INFO", logger="visdeploy"):
        results, clear, identity = scored(truth, length, overlap)
    assert "window border" not in caplog.text
    assert clear["IDSW"] == 0
    assert clear["CLR_TP"] >= 0.98 * (clear["CLR_TP"] + clear["CLR_FN"])
    assert identity["IDF1"] > 0.98
    objects = [sum(a.video_id == video.id for a in truth.annotations) for video in truth.videos]
    assert [len(result.tracks) for result in results] == objects


def test_without_stitching_every_border_swaps_identities_and_says_so(truth, caplog):
    with caplog.at_level("INFO", logger="visdeploy"):
        _, clear, identity = scored(truth, 8, 4, iou_threshold=1.0)
    assert "tracks [0, 1] end at a window border, before frame 8" in caplog.text
    assert clear["IDSW"] > len(truth.annotations)
    assert identity["IDF1"] < 0.7
