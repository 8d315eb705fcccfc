"""Targets at a quarter of the size, and the properties of the losses."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.visdeploy_training.methods.vishv.conftest import small_network
from visdeploy.errors import DataError
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.vishv import vishv_losses
from visdeploy_training.methods.vishv.embedding import Embeddings
from visdeploy_training.methods.vishv.losses import embedding_terms, flow_loss, flow_terms, semantic_losses
from visdeploy_training.methods.vishv.network import Heads
from visdeploy_training.methods.vishv.targets import QuarterTargets, frame_unions, quarter_masks, quarter_targets

NAMES = {"loss_lovasz", "loss_smoothness", "loss_seediness", "loss_semantic", "loss_foreground", "loss_flow"}


def test_every_weight_learns(clips: torch.Tensor, targets: list[ClipTargets]):
    """With both options that train the appearance decoder; the prior of the last level has an input of zeros."""
    model = small_network(offset_detach=False, flow_input_gradient="straight_through").train()
    model(clips)
    losses = vishv_losses(model(clips), targets, model.config)
    assert set(losses) == NAMES
    torch.stack(list(losses.values())).sum().backward()
    dead = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert dead == []
    assert float(model.get_parameter("embedding_head.conv_variance.bias").grad.abs().sum()) > 0


def test_the_first_phase_has_the_flow_loss_alone(clips: torch.Tensor, targets: list[ClipTargets]):
    model = small_network(flow_iterations=1).train()
    model.start_iteration(0)
    losses = vishv_losses(model(clips), targets, model.config)
    assert set(losses) == {"loss_flow"}
    losses["loss_flow"].backward()
    assert model.get_parameter("embedding_head.conv_embedding.weight").grad is None
    assert model.get_parameter("offset_head.blocks.0.flows.0.invconv.w_s").grad is not None


def test_a_conditional_flow_sees_the_masks(clips: torch.Tensor, targets: list[ClipTargets]):
    model = small_network(flow_conditional=True).train()
    flow = model.offset_head
    assert flow is not None
    for name, parameter in flow.named_parameters():
        if ".net.4." in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    output = model(clips)
    first = flow_loss(output, targets, model.config)
    moved = [ClipTargets(t.masks.roll(32, dims=2), t.labels) for t in targets]
    assert not torch.equal(first, flow_loss(output, moved, model.config))
    assert torch.equal(frame_unions(targets)[:2, 0].bool(), targets[0].masks.any(dim=1))


def test_flow_chunks_leave_out_the_rest(clips: torch.Tensor, targets: list[ClipTargets]):
    model = small_network()
    output = model(clips)
    whole, chunk = (dataclasses.replace(model.config, flow_chunk=n) for n in (4, 3))
    assert flow_terms(output, targets, whole)[0].shape == (4,)
    assert output.flow_input is not None
    changed = output.flow_input.clone()
    changed[3] = 0.4
    pair = [flow_loss(output._replace(flow_input=x), targets, chunk) for x in (output.flow_input, changed)]
    assert torch.equal(*pair)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 0.98))
def test_reduced_masks_are_truncated_interpolations(seed: int, share: float):
    masks = torch.rand(2, 16, 24, generator=torch.Generator().manual_seed(seed)) < share
    resized = F.interpolate(masks[None].float(), scale_factor=0.25, mode="bilinear", align_corners=False)[0]
    assert torch.equal(quarter_masks(masks), resized.long().bool())


def test_objects_that_vanish_are_left_out():
    masks = torch.zeros(2, 3, 32, 32, dtype=torch.bool)
    masks[:, 0, 1, :] = True  # one row: nothing remains at a quarter of the size
    masks[1, 2, 8:24, 8:24] = True
    found = quarter_targets(ClipTargets(masks, torch.tensor([[0, 5, 3], [0, 5, 1]])))
    assert found.categories.tolist() == [2]
    assert torch.equal(found.masks[0, 1], quarter_masks(masks[1, 2]))
    assert found.semantic.unique().tolist() == [0, 2]


def make_heads(*, frames: int = 2, seed: int = 0) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    values, variances, seediness = (torch.randn(1, c, frames, 6, 8, generator=generator) for c in (4, 2, 1))
    return Heads(Embeddings(values, variances, None), seediness.sigmoid(), None)


def box(ignore: bool = False) -> QuarterTargets:
    masks = torch.zeros(1, 2, 6, 8, dtype=torch.bool)
    masks[:, :, 1:4, 2:5] = True
    unknown = torch.zeros(2, 6, 8, dtype=torch.bool)
    unknown[:, 5] = ignore
    return QuarterTargets(masks, torch.tensor([1]), unknown)


def test_a_perfect_embedding_has_no_loss():
    target = box()
    mask = target.masks[0]
    values = torch.where(mask, 0.0, 10.0).expand(1, 4, -1, -1, -1)
    heads = Heads(Embeddings(values, torch.zeros(1, 2, 2, 6, 8), None), mask[None, None].float(), None)
    assert [float(each) for each in embedding_terms(heads, [target], (0.3, 0.3))] == [0, 0, 0]


def test_terms_of_one_object_by_hand():
    heads, target = make_heads(), box(ignore=True)
    mask, values, raw = target.masks[0], heads.embeddings.values[0], heads.embeddings.variances[0]
    found = embedding_terms(heads, [target], (0.3, 0.5))
    width = [float((10 * raw[i][mask].exp()).mean()) for i in range(2)] + [1 / 0.09, 1 / 0.25]
    distance = sum(w * (values[i] - values[i][mask].mean()) ** 2 for i, w in enumerate(width))
    probability = torch.exp(-0.5 * torch.as_tensor(distance))
    seed = heads.seediness[0, 0]
    spread = torch.stack([(raw[i][mask] - raw[i][mask].mean()) ** 2 for i in range(2)]).mean()
    background = (seed**2 * ~target.ignore)[~mask].mean()
    assert float(found.smoothness) == pytest.approx(float(spread), rel=1e-5)
    expected = (float(((seed - probability)[mask] ** 2).mean()) + float(background)) / 2
    assert float(found.seediness) == pytest.approx(expected, rel=1e-5)


def test_clips_without_objects_have_a_loss_of_zero_with_gradients(clips: torch.Tensor):
    model = small_network().train()
    empty = [ClipTargets(torch.zeros(2, k, 96, 128, dtype=torch.bool), torch.zeros(2, k).long()) for k in (0, 2)]
    losses = vishv_losses(model(clips), empty, model.config)
    assert [float(losses[f"loss_{n}"]) for n in ("lovasz", "smoothness", "seediness")] == [0, 0, 0]
    torch.stack(list(losses.values())).sum().backward()
    assert model.get_parameter("embedding_head.conv_embedding.weight").grad is not None


def test_ignored_pixels_count_for_the_foreground_only():
    config = small_network().config
    logits, target = torch.randn(1, 5, 2, 6, 8), box(ignore=True)
    changed = logits.clone()
    changed[:, -1, :, 5] += 3
    before, after = (semantic_losses(each, [target], config) for each in (logits, changed))
    assert torch.equal(before["loss_foreground"], after["loss_foreground"])
    changed[:, 0, :, 5] += 3
    assert float(semantic_losses(changed, [target], config)["loss_semantic"]) != float(before["loss_semantic"])


def test_targets_of_another_batch_are_refused(clips: torch.Tensor, targets: list[ClipTargets]):
    model = small_network()
    output = model(clips)
    with pytest.raises(DataError, match="do not match"):
        vishv_losses(output, targets[:1], model.config)
    with pytest.raises(DataError, match="out of range"):
        vishv_losses(output, [ClipTargets(t.masks, t.labels + 3) for t in targets], model.config)
    with pytest.raises(DataError, match="malformed"):
        ClipTargets(targets[0].masks, targets[0].labels, torch.zeros(2, 96, 64, dtype=torch.bool))
