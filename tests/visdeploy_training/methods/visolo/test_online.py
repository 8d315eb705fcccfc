import dataclasses

import pytest
import torch

from tests.goldens.visolo_clip import ReferenceRun, memory_frames
from visdeploy_training.methods.visolo import VISOLO, OnlineStep
from visdeploy_training.methods.visolo.online import Memory, grid_weight_slots, slot_to_write

pytestmark = pytest.mark.isa


def empty_memory(slots: int) -> Memory:
    none = torch.zeros(slots, 1, 1)
    return Memory(none, none, none, torch.full((slots,), -1), torch.zeros(1, dtype=torch.int64))


def walk(slots: int, count: int):
    """Yield per frame its index, the frames read, and their shares in the grid weight; only slots and clock change."""
    memory = empty_memory(slots)
    for t in range(count):
        shares = dict(zip(memory.frame.tolist(), grid_weight_slots(memory).tolist(), strict=True))
        yield t, sorted(f for f in memory.frame.tolist() if f >= 0), {k: v for k, v in shares.items() if v}
        slot = slot_to_write(memory)
        assert slot.sum() == 1
        memory = memory._replace(frame=torch.where(slot, memory.step, memory.frame), step=memory.step + 1)


def test_slots_hold_what_the_unbounded_list_holds():
    for t, read, shares in walk(16, 73):
        assert read == memory_frames(t)
        expected: dict[int, float] = {}
        if t:
            for frame in (t - 1, max(0, 5 * ((t - 2) // 5))):
                expected[frame] = expected.get(frame, 0.0) + 0.5
        assert shares == expected


@pytest.mark.parametrize("slots", [4, 5, 8])
def test_full_memory_keeps_first_newest_and_latest_key_frames(slots: int):
    for t, read, shares in walk(slots, 200):
        assert len(read) <= slots
        if t >= 2:
            assert {0, t - 2, t - 1} <= set(read)
            assert sum(shares.values()) == 1.0
            keys = list(range(5, t - 2, 5))
            room = slots - 1 - len({t - 2, t - 1})
            held = [k for k in read if k and k < t - 2]
            assert held == keys[len(keys) - len(held) :]
            assert len(held) >= min(len(keys), room - 1)


def run(model: VISOLO, frames: torch.Tensor, **changes: object) -> list[dict[str, torch.Tensor]]:
    original = model.config
    model.config = dataclasses.replace(original, **changes)
    try:
        step = OnlineStep(model).eval()
        state, found = step.initial_state(), []
        with torch.no_grad():
            for frame in frames:
                outputs = dict(zip(step.output_names, step(frame, **state), strict=True))
                state = {name: outputs[f"next_{name}"] for name in state}
                found.append(outputs)
        return found
    finally:
        model.config = original


@torch.no_grad()
def test_step_equals_the_unbounded_reference(small_model: VISOLO, frames: torch.Tensor):
    reference = ReferenceRun(small_model)
    for t, outputs in enumerate(run(small_model, frames)):
        expected = reference.step(frames[t])
        cells = outputs["cell_scores"].T.reshape(expected["pred_cats"].shape)
        torch.testing.assert_close(cells, expected["pred_cats"], atol=1e-4, rtol=1e-4)
        if t:
            torch.testing.assert_close(outputs["grid_weight"], expected["grid_weight"].flatten(), atol=1e-4, rtol=0)
        else:
            assert torch.equal(outputs["grid_weight"], torch.ones(48))


def test_outputs_are_consistent(small_model: VISOLO, frames: torch.Tensor):
    counts = []
    for outputs in run(small_model, frames[:6], score_threshold=0.05):
        n, masks = len(outputs["scores"]), outputs["masks"]
        counts.append(n)
        assert masks.shape == (n, 64, 96)
        assert masks.dtype == torch.uint8
        flat = masks.flatten(1).float()
        assert torch.equal(outputs["overlaps"], flat @ flat.T)
        assert torch.equal(outputs["class_scores"], outputs["cell_scores"][outputs["cells"]])
        assert torch.equal(outputs["labels"], outputs["class_scores"].argmax(dim=1))
        assert (outputs["scores"].diff() <= 0).all()
        up = torch.nn.functional.interpolate(outputs["mask_logits"][None], scale_factor=4.0, mode="bilinear")[0]
        assert torch.equal(up.sigmoid() > 0.5, masks.bool())
        slot = (outputs["next_mem_frame"] == outputs["next_step"] - 1).nonzero().item()
        reference = outputs["next_mem_ref"][slot][:, outputs["cells"]].T
        assert torch.equal(reference, outputs["reference"])
    assert min(counts) > 0


def test_no_detections_is_a_result(small_model: VISOLO, frames: torch.Tensor):
    for outputs in run(small_model, frames[:2], score_threshold=1.0):
        for name in ("scores", "labels", "cells", "class_scores", "masks", "query", "reference", "mask_logits"):
            assert outputs[name].shape[0] == 0
        assert outputs["overlaps"].shape == (0, 0)
        assert outputs["masks"].shape[1:] == (64, 96)


def test_step_does_not_change_its_inputs(small_model: VISOLO, frames: torch.Tensor):
    step = OnlineStep(small_model).eval()
    state = step.initial_state()
    kept = {k: v.clone() for k, v in state.items()}
    with torch.no_grad():
        step(frames[0], **state)
    assert all(torch.equal(state[k], kept[k]) for k in state)
    for spec in step.state_specs:
        assert list(state[spec.input].shape) == spec.shape
        assert str(state[spec.input].dtype) == f"torch.{spec.dtype}"
