"""Shapes, coordinates, windows, gradients of the options, and the exported step."""

import pytest
import torch
import torch.nn.functional as F

from tests.visdeploy_training.methods.vishv.conftest import small_network
from visdeploy.errors import ConfigError
from visdeploy_training import create_model
from visdeploy_training.methods.vishv import ClipStep
from visdeploy_training.methods.vishv.config import WINDOWS
from visdeploy_training.methods.vishv.decoder import enlarge, pools
from visdeploy_training.methods.vishv.embedding import coordinate_grid, flow_input
from visdeploy_training.methods.vishv.network import foreground_logits


def test_shapes(clips: torch.Tensor):
    model = small_network()
    output = model(clips)
    assert output.size == (2, 2, 96, 128)
    assert output.heads is not None
    assert output.heads.embeddings.values.shape == (2, 6, 2, 24, 32)
    assert output.heads.embeddings.variances.shape == (2, 3, 2, 24, 32)
    assert output.heads.seediness.shape == (2, 1, 2, 24, 32)
    assert output.heads.semantic is not None
    assert output.heads.semantic.shape == (2, 5, 2, 24, 32)
    assert output.flow_input is not None
    assert output.flow_input.shape == (4, 3, 6, 8)


@pytest.mark.parametrize("window", [4, 8, 16])
def test_windows_of_every_layout(window: int):
    """The number of poolings depends on the window, the weights do not."""
    model = small_network(window=window)
    with torch.no_grad():
        outputs = ClipStep(model)(torch.randn(window, 3, 96, 96))
    assert [each.shape[0] for each in outputs] == [window] * 5
    assert model.state_dict().keys() == small_network().state_dict().keys()


def test_other_windows_are_refused():
    assert [pools(window) for window in WINDOWS] == [0, 1, 2, 3, 3, 3]
    with pytest.raises(ConfigError, match="one of 2, 4, 8, 16, 24, 32"):
        small_network()(torch.randn(1, 6, 3, 96, 96))


@pytest.mark.parametrize(("height", "width"), [(100, 128), (64, 128), (128, 64)])
def test_wrong_sizes_are_refused(height: int, width: int):
    with pytest.raises(ConfigError, match="at least 96"):
        small_network()(torch.zeros(1, 2, 3, height, width))


@pytest.mark.parametrize(("frames", "space"), [(1, 2), (2, 2), (1, 8)])
def test_resizing_in_two_steps_is_trilinear(frames: int, space: int):
    x = torch.randn(2, 3, 4, 3, 5)
    expected = F.interpolate(x, scale_factor=(frames, space, space), mode="trilinear", align_corners=False)
    assert torch.allclose(enlarge(x, frames=frames, space=space), expected, atol=1e-6)


def test_coordinates_start_and_end_at_the_borders():
    grid = coordinate_grid(torch.zeros(1, 1, 4, 6, 9), "tyx", torch.tensor(0.5))[0]
    assert torch.allclose(grid[:, 0, 0, 0], torch.tensor([-0.5, -1.0, -1.5]))
    assert torch.allclose(grid[:, -1, -1, -1], torch.tensor([0.5, 1.0, 1.5]))
    assert torch.equal(coordinate_grid(torch.zeros(1, 1, 4, 6, 9), "yx", torch.tensor(0.5))[0], grid[1:])


def test_the_time_scale_is_that_of_the_checkpoint(clips: torch.Tensor):
    model = small_network(position="tyx", time_scale=1.0)
    first = model.infer(clips).embeddings.values
    model.embedding_head.time_scale.fill_(3.0)
    change = model.infer(clips).embeddings.values - first
    assert torch.allclose(change[:, 0, 0], torch.tensor(-2.0), atol=1e-5)
    assert torch.allclose(change[:, 0, 1], torch.tensor(2.0), atol=1e-5)
    assert not change[:, 1:].any()


def test_pooling_counts_the_padding():
    """Of the 27 pixels around a corner 12 are inside; around the middle of the first frame 18."""
    block = small_network().embedding_head.block_8x
    pooled = block._pool(torch.ones(1, 1, 4, 3, 3))
    assert float(pooled[0, 0, 1, 0, 0]) == pytest.approx(12 / 27)
    assert float(pooled[0, 0, 0, 1, 1]) == pytest.approx(18 / 27)


def gradient_of_appearance(clips: torch.Tensor, part: str, **changes: object) -> float:
    """Size of the gradient of the appearance decoder from the embeddings or from the likelihood of the flow."""
    model = small_network(**changes).train()
    # the maps of an untrained backbone are so close to 0 that all values are quantised to the same one
    spread = 1 / float(model.levels(clips)[-1].std().detach())
    torch.nn.init.normal_(model.get_parameter("offset_decoder.conv1_add.0.weight"), 0, spread)
    output = model(clips)
    assert output.heads is not None
    if part == "embeddings":
        value = output.heads.embeddings.values.square().sum()
    else:
        assert output.flow is not None
        assert output.flow_input is not None
        value = output.flow(output.flow_input, None).log_p.sum()
    value.backward()
    gradient = model.get_parameter("offset_decoder.conv1_add.0.weight").grad
    return 0.0 if gradient is None else float(gradient.abs().sum())


def test_published_gradients_do_not_reach_the_appearance_decoder(clips: torch.Tensor):
    assert gradient_of_appearance(clips, "embeddings", offset_detach=True) == 0
    assert gradient_of_appearance(clips, "flow") == 0


def test_options_that_train_the_appearance_decoder(clips: torch.Tensor):
    assert gradient_of_appearance(clips, "embeddings", offset_detach=False) > 0
    assert gradient_of_appearance(clips, "flow", flow_input_gradient="straight_through") > 0


def test_straight_through_does_not_change_the_values():
    appearance = 2 * torch.randn(1, 3, 2, 24, 32)
    plain, through = (flow_input(appearance, 5, straight_through=s) for s in (False, True))
    assert torch.allclose(plain, through, atol=1e-6)
    assert torch.equal(plain * 32, (plain * 32).round())
    assert -0.5 <= float(plain.min()) <= float(plain.max()) < 0.5


def test_only_the_flow_is_computed_first(clips: torch.Tensor):
    model = small_network(flow_iterations=5).train()
    model.start_iteration(4)
    assert model(clips).heads is None
    model.start_iteration(5)
    assert model(clips).heads is not None


def test_networks_without_flow_have_one_phase(clips: torch.Tensor):
    model = small_network(flow=False, flow_iterations=5).train()
    model.start_iteration(0)
    output = model(clips)
    assert output.heads is not None
    assert output.flow is None


def test_a_frozen_backbone_does_not_learn(clips: torch.Tensor):
    model = small_network(freeze_backbone=True).train()
    assert not model.backbone.training
    heads = model(clips).heads
    assert heads is not None
    heads.seediness.sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())


def test_the_step_gives_the_heads_of_one_clip(clips: torch.Tensor):
    model = small_network()
    step = ClipStep(model)
    with torch.no_grad():
        found = dict(zip(step.output_names, step(clips[0]), strict=True))
        heads = model.infer(clips[:1])
    assert torch.equal(found["embeddings"], heads.embeddings.values[0].transpose(0, 1))
    assert torch.allclose(found["bandwidths"], 10 * heads.embeddings.variances[0].transpose(0, 1).exp())
    assert torch.equal(found["seediness"], heads.seediness[0, 0])
    assert heads.semantic is not None
    assert torch.equal(found["class_logits"], heads.semantic[0, :-1].transpose(0, 1))
    assert torch.equal(found["foreground_logits"], heads.semantic[0, -1])


def test_the_step_resizes_after_the_exponential(clips: torch.Tensor):
    model = small_network(resize_embeddings=True, semantic=False, output="davis", separate_seediness=True)
    step = ClipStep(model)
    with torch.no_grad():
        found = dict(zip(step.output_names, step(clips[0]), strict=True))
        coarse = 10 * model.infer(clips[:1]).embeddings.variances[0].exp()
    assert list(found) == ["embeddings", "bandwidths", "seediness"]
    assert found["seediness"].shape == (2, 96, 128)
    wide = F.interpolate(coarse[None], scale_factor=(1, 4, 4), mode="trilinear", align_corners=False)[0]
    assert torch.allclose(found["bandwidths"], wide.transpose(0, 1), rtol=1e-5)


def test_the_foreground_of_two_channels_is_a_softmax():
    logits = torch.randn(4, 2, 3, 5)
    assert torch.allclose(foreground_logits(logits).sigmoid(), logits.softmax(dim=1)[:, 1], atol=1e-6)
    assert torch.equal(foreground_logits(logits[:, [0, 1, 0]]), logits[:, 0])


def test_other_networks_are_refused():
    with pytest.raises(TypeError, match="ClipStep takes a VIShv network"):
        ClipStep(create_model("visolo", "tiny"))
