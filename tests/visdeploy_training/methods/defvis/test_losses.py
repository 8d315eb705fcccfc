import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.errors import DataError
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.defvis import DefVISConfig, DefVISOutput, defvis_losses
from visdeploy_training.methods.defvis.losses import match_clip, matching_cost
from visdeploy_training.methods.defvis.targets import object_targets

pytestmark = pytest.mark.isa

CONFIG = DefVISConfig(num_classes=3, num_frames=2, instance_groups=0, tokens_per_group=0, queries_per_frame=3)
HEIGHT, WIDTH = 18, 24


def random_output(seed: int, *, clips: int = 2, layers: int = 2) -> DefVISOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, clips, 3, 2, 5, generator=generator)
    boxes = torch.rand(layers, clips, 3, 2, 4, generator=generator)
    masks = torch.randn(clips, 3, 2, 5, 6, generator=generator)
    return DefVISOutput(*(x.requires_grad_() for x in (logits, boxes, masks)))


def clip(*, objects: int = 2) -> ClipTargets:
    masks = torch.zeros(2, objects, HEIGHT, WIDTH, dtype=torch.bool)
    for k in range(objects):
        masks[: 1 + k % 2, k, 2 + k : 9 + k, 3 * k : 3 * k + 8] = True
    return ClipTargets(masks, torch.arange(objects).remainder(3).expand(2, -1))


def empty(frames: int, height: int, width: int) -> ClipTargets:
    masks = torch.zeros(frames, 0, height, width, dtype=torch.bool)
    return ClipTargets(masks, torch.zeros(frames, 0, dtype=torch.int64))


def perfect(target: ClipTargets) -> DefVISOutput:
    """Return outputs in which slot k is object k with certainty."""
    objects = object_targets(target)
    logits = torch.full((1, 1, 3, 2, 5), -20.0)
    logits[..., -1] = 20.0
    boxes, masks = torch.full((1, 1, 3, 2, 4), 0.5), torch.full((1, 3, 2, HEIGHT, WIDTH), -20.0)
    for k, frame in objects.valid.nonzero().tolist():
        logits[0, 0, k, frame, -1] = -20.0
        logits[0, 0, k, frame, objects.ids[k, frame]] = 20.0
        boxes[0, 0, k, frame] = objects.boxes[k, frame]
        masks[0, k, frame][objects.masks[k, frame]] = 20.0
    return DefVISOutput(logits, boxes, masks)


def test_a_perfect_answer_costs_nothing():
    target = clip()
    output = perfect(target)
    from visdeploy_training.methods.defvis.losses import criterion, match_layers

    objects = object_targets(target)
    losses = criterion(output, [objects], match_layers(output, [objects], CONFIG), CONFIG)
    assert max(float(v) for v in losses.values()) < 1e-5


def test_only_the_frames_of_an_object_are_matched():
    output, objects = perfect(clip()), object_targets(clip())
    match = match_clip(output.logits[0, 0], output.boxes[0, 0], objects, CONFIG)
    rows = sorted(zip(match.slot.tolist(), match.object.tolist(), match.frame.tolist(), strict=True))
    assert rows == [(0, 0, 0), (1, 1, 0), (1, 1, 1)]


@given(seed=st.integers(0, 999))
@settings(max_examples=25)
def test_order_of_slots_and_objects_does_not_matter(seed: int):
    generator = torch.Generator().manual_seed(seed)
    output, target = random_output(seed, clips=1), clip()
    slots, objects = torch.randperm(3, generator=generator), torch.randperm(2, generator=generator)
    shuffled = DefVISOutput(output.logits[:, :, slots], output.boxes[:, :, slots], output.masks[:, slots])
    moved = ClipTargets(target.masks[:, objects], target.labels[:, objects])
    first, second = (defvis_losses(o, [t], CONFIG) for o, t in ((output, target), (shuffled, moved)))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-5, rtol=1e-4)


def test_a_batch_is_normalised_as_one():
    """Box losses of two clips are the mean of the clips' own where both have as many objects."""
    output, target = random_output(3), clip()
    both = defvis_losses(output, [target, target], CONFIG)
    parts = [
        DefVISOutput(output.logits[:, b : b + 1], output.boxes[:, b : b + 1], output.masks[b : b + 1]) for b in (0, 1)
    ]
    alone = [defvis_losses(part, [target], CONFIG) for part in parts]
    for name in ("loss_bbox", "loss_giou", "loss_mask", "loss_dice", "loss_bbox_0"):
        torch.testing.assert_close(both[name], (alone[0][name] + alone[1][name]) / 2)


def test_names_and_weights():
    output, target = random_output(0, layers=3), [clip(), clip()]
    losses = defvis_losses(output, target, CONFIG)
    basic = {"loss_ce", "loss_bbox", "loss_giou"}
    assert set(losses) == basic | {"loss_mask", "loss_dice"} | {f"{n}_{i}" for n in basic for i in (0, 1)}
    heavy = dataclasses.replace(CONFIG, mask_weight=3.0, no_object_weight=CONFIG.no_object_weight)
    changed = defvis_losses(output, target, heavy)
    assert {n for n in losses if not torch.equal(losses[n], changed[n])} == {"loss_mask"}
    torch.testing.assert_close(changed["loss_mask"], 3 * losses["loss_mask"])


@pytest.mark.parametrize("objects", [0, 1, 5])
def test_any_number_of_objects_gives_finite_losses_and_gradients(objects: int):
    output = random_output(1)
    losses = defvis_losses(output, [clip(objects=objects), clip(objects=0)], CONFIG)
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in output)
    if not objects:
        assert not output.boxes.grad.any()
        assert not output.masks.grad.any()
        assert losses["loss_ce"] > 0


def test_absent_frames_count_in_the_cost():
    """Where the object is absent, the target class is id 0 and the target box is zero."""
    output, objects = random_output(5, clips=1), object_targets(clip())
    logits, boxes = output.logits[0, 0].detach(), output.boxes[0, 0].detach()
    cost = matching_cost(logits, boxes, objects, CONFIG)
    probability = logits.softmax(-1)
    # object 0 is there in frame 0 only
    likeness = (probability[:, 0, 1] + probability[:, 1, 0]) / 2
    distance = ((boxes[:, 0] - objects.boxes[0, 0]).abs().mean(-1) + boxes[:, 1].mean(-1)) / 2
    corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
    x, y, w, h = objects.boxes[0, 0].tolist()
    inner = (corners[:, 0, 2:].minimum(torch.tensor([x + w / 2, y + h / 2])) -
             corners[:, 0, :2].maximum(torch.tensor([x - w / 2, y - h / 2]))).clamp(min=0).prod(-1)  # fmt: skip
    union = boxes[:, 0, 2:].prod(-1) + w * h - inner
    # nothing meets nothing: only the added constants remain
    empty = 1e-6 / (boxes[:, 1, 2:].prod(-1) + 1e-6)
    iou = ((inner + 1e-6) / (union + 1e-6) + empty) / 2
    torch.testing.assert_close(cost[:, 0], 5 * distance - likeness - 2 * iou)


@pytest.mark.parametrize(
    ("targets", "word"),
    [
        ([clip()], "do not match"),
        (
            [clip(), ClipTargets(torch.zeros(3, 0, HEIGHT, WIDTH, dtype=torch.bool), torch.zeros(3, 0).long())],
            "do not match",
        ),
        ([ClipTargets(torch.zeros(2, 0, 40, 50, dtype=torch.bool), torch.zeros(2, 0).long())] * 2, "do not match"),
        ([ClipTargets(clip().masks, clip().labels + 2)] * 2, "out of range"),
        ([], "do not match"),
    ],
)
def test_wrong_targets_are_refused(targets: list[ClipTargets], word: str):
    with pytest.raises(DataError, match=word):
        defvis_losses(random_output(0), targets, CONFIG)
