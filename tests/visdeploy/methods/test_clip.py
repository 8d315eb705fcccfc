"""Identities across clips where masks alone do not decide; windows are tested in tests/visdeploy/test_clips.py."""

import numpy as np

from visdeploy.manifest import Window
from visdeploy.methods.defvis import DefVISDecoder
from visdeploy.streaming.windows import Step

LENGTH, OVERLAP, SIDE = 4, 2, 64
FIRST = Step({}, first=0, timestamps=tuple(map(float, range(LENGTH))), fresh=LENGTH)
SECOND = Step({}, first=2, timestamps=tuple(map(float, range(2, 2 + LENGTH))), fresh=LENGTH - OVERLAP)
WINDOW = Window(mode="clip", length=8, stride=8 - OVERLAP)


def decoder(**tracking: float) -> DefVISDecoder:
    return DefVISDecoder(["a", "b"], window=WINDOW, decode={}, tracking=tracking)


def clip(*slots: tuple[int, int, float]) -> dict[str, np.ndarray]:
    """Return the outputs for slots given by label, number of columns of the mask, score. The masks do not move."""
    scores = np.zeros((len(slots), LENGTH, 3), np.float32)
    logits = np.full((len(slots), LENGTH, SIDE, SIDE), -1, np.float32)
    for slot, (label, columns, score) in enumerate(slots):
        scores[slot, :, 1 + label] = score
        logits[slot, :, 4:12, 2 : 2 + columns] = 1
    return {"class_scores": scores, "mask_logits": logits}


def identities(decoder: DefVISDecoder, *clips: dict[str, np.ndarray]) -> list[dict[int, tuple[int, float]]]:
    """Return label and score by track, in the last frame that each clip makes final, and at the end."""
    found = []
    for step, outputs in zip((FIRST, SECOND), clips, strict=True):
        found.append(decoder.decode(outputs, step, height=SIDE, width=SIDE)[-1])
    found.append(decoder.finish()[-1])
    return [{i.track_id: (i.label, round(i.score, 3)) for i in frame} for frame in found]


def test_slots_of_one_mask_and_label_keep_their_tracks():
    """A difference of one column, as rounding causes in equal masks, must not exchange the tracks."""
    clips = clip((0, 40, 0.9), (0, 39, 0.2)), clip((0, 39, 0.9), (0, 40, 0.2))
    for frame in identities(decoder(), *clips):
        assert frame == {0: (0, 0.9), 1: (0, 0.2)}
    assert identities(decoder(slot_bonus=0.0), *clips)[-1] != {0: (0, 0.9), 1: (0, 0.2)}


def test_masks_decide_before_slots():
    first, second = clip((0, 8, 0.9), (0, 3, 0.2)), clip((0, 3, 0.2), (0, 8, 0.9))
    assert identities(decoder(), first, second)[-1] == {0: (0, 0.9), 1: (0, 0.2)}


def test_labels_decide_before_slots():
    first, second = clip((0, 8, 0.9), (1, 8, 0.2)), clip((1, 8, 0.2), (0, 8, 0.9))
    assert identities(decoder(), first, second)[-1] == {0: (0, 0.9), 1: (1, 0.2)}


def test_a_saved_decoder_knows_its_slots():
    clips = clip((0, 40, 0.9), (0, 39, 0.2)), clip((0, 39, 0.9), (0, 40, 0.2))
    first, second = decoder(), decoder()
    first.decode(clips[0], FIRST, height=SIDE, width=SIDE)
    second.load_state(first.state())
    found = second.decode(clips[1], SECOND, height=SIDE, width=SIDE)[-1]
    assert {i.track_id: round(i.score, 3) for i in found} == {0: 0.9, 1: 0.2}
