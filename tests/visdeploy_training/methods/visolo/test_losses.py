from typing import Any

import pytest
import torch

from visdeploy.errors import DataError
from visdeploy_training.methods.visolo import VISOLO, ClipTargets, VISOLOConfig, VISOLOOutput, visolo_losses
from visdeploy_training.methods.visolo.targets import assign_clip

pytestmark = pytest.mark.isa

CONFIG = VISOLOConfig(num_classes=3, grid=(3, 4))
FULL = (2, 3, 16, 24)


def random_output(seed: int) -> VISOLOOutput:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, 3, 3, 4), (2, 5, 3, 3, 4), (2, 5, 3, 4, 6), (2, 3, 12, 12)]
    return VISOLOOutput(*(torch.randn(s, generator=generator, requires_grad=True) for s in shapes))


def targets(*, absent: bool = False) -> list[ClipTargets]:
    clips = []
    for b in range(2):
        masks = torch.zeros(3, 2, 16, 24, dtype=torch.bool)
        if not absent and b == 0:
            masks[:, 0, 1:6, 2:9] = True
            masks[:2, 1, 8:15, 10:20] = True
        clips.append(ClipTargets(masks, torch.tensor([[0, 2], [0, 2], [0, 3]])))
    return clips


def plain_mask_loss(output: VISOLOOutput, clips: list[ClipTargets], config: VISOLOConfig) -> torch.Tensor:
    frames = []
    for t in range(3):
        per_clip = []
        for b, clip in enumerate(clips):
            owner = assign_clip(clip, config.grid)[t]
            dice = []
            for cell in range(12):
                if owner[cell] < 0:
                    continue
                kernel = output.kernels[b, :, t].flatten(1)[:, cell]
                logits = torch.einsum("c,chw->hw", kernel, output.mask_features[b, :, t])
                p = torch.nn.functional.interpolate(logits[None, None], scale_factor=4, mode="bilinear")[0, 0].sigmoid()
                m = clip.masks[t, owner[cell]].float()
                dice.append(1 - 2 * (p * m).sum() / ((p**2).sum() + (m**2).sum() + 1e-7))
            if dice:
                per_clip.append(sum(dice) / len(dice))
        if per_clip:
            frames.append(sum(per_clip) / len(per_clip))
    return 3.0 * sum(frames) / len(frames)


def test_mask_loss_equals_the_plain_loops():
    output, clips = random_output(0), targets()
    found = visolo_losses(output, clips, CONFIG)
    torch.testing.assert_close(found["loss_mask"], plain_mask_loss(output, clips, CONFIG), atol=1e-5, rtol=1e-5)


def test_clips_without_objects_give_finite_losses_and_gradients():
    output = random_output(1)
    found = visolo_losses(output, targets(absent=True), CONFIG)
    assert found["loss_mask"].item() == found["loss_tracking"].item() == 0
    assert found["loss_cat"].item() > 0
    sum(found.values()).backward()
    assert all(torch.isfinite(x.grad).all() for x in output)


def test_clips_with_no_row_at_all():
    none = [ClipTargets(torch.zeros(3, 0, 16, 24, dtype=torch.bool), torch.zeros(3, 0, dtype=torch.int64))] * 2
    found = visolo_losses(random_output(2), none, CONFIG)
    assert all(torch.isfinite(v) for v in found.values())


def test_right_answers_cost_less():
    clips = targets()
    right, wrong = random_output(3), random_output(3)
    with torch.no_grad():
        for b, clip in enumerate(clips):
            owner = assign_clip(clip, CONFIG.grid)
            right.class_logits[b] = -9.0
            for t, cell in (owner >= 0).nonzero().tolist():
                right.class_logits[b, clip.labels[t, owner[t, cell]], t].view(-1)[cell] = 9.0
            for p, (u, v) in enumerate(((0, 1), (0, 2), (1, 2))):
                same = (owner[u][:, None] == owner[v][None]) & (owner[u] >= 0)[:, None]
                right.tracking_logits[b, p] = same.float() * 18 - 9
    good, bad = visolo_losses(right, clips, CONFIG), visolo_losses(wrong, clips, CONFIG)
    assert good["loss_cat"] < 1e-3 < bad["loss_cat"]
    assert good["loss_tracking"] < 1e-3 < bad["loss_tracking"]


@pytest.mark.parametrize("change", ["clips", "frames", "size", "label"])
def test_targets_that_do_not_fit_are_refused(change: str):
    clips: Any = targets()
    if change == "clips":
        clips = clips[:1]
    elif change == "label":
        clips[0] = ClipTargets(clips[0].masks, torch.full((3, 2), 3))
    else:
        masks = clips[0].masks[:2] if change == "frames" else clips[0].masks[..., :8]
        clips[0] = ClipTargets(masks, clips[0].labels[: len(masks)])
    with pytest.raises(DataError):
        visolo_losses(random_output(4), clips, CONFIG)


def test_a_small_network_learns_one_clip(small_model: VISOLO, frames: torch.Tensor):
    from visdeploy_training import create_model

    torch.manual_seed(0)
    config = small_model.config
    sizes = {k: getattr(config, k) for k in ("grid", "head_width", "mask_width", "track_dim", "neck_width")}
    model = create_model("visolo", "tiny", num_classes=5, pretrained=True, **sizes)
    masks = torch.zeros(3, 1, 64, 96, dtype=torch.bool)
    masks[:, 0, 16:48, 24:72] = True
    clip = [ClipTargets(masks, torch.zeros(3, 1, dtype=torch.int64))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        losses = visolo_losses(model(frames[:3].transpose(0, 1)), clip, model.config)
        history.append({k: v.item() for k, v in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(history[-1][k] < 0.7 * history[0][k] for k in ("loss_cat", "loss_mask", "loss_tracking"))
