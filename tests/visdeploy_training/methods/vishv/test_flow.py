"""Invertibility of the flow, its log-determinant, and its initialisation from the first batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visdeploy.errors import ConfigError
from visdeploy_training.methods.vishv.flow import Glow, bits_per_dim
from visdeploy_training.methods.vishv.flow.glow import squeeze, unsqueeze
from visdeploy_training.methods.vishv.flow.layers import LUConv, PlainConv


def random_flow(seed: int, channels: int, levels: int, *, affine: bool, lu: bool, conditional: bool) -> Glow:
    """Return a flow with two steps in a level whose couplings and priors are not the initial zeros."""
    torch.manual_seed(seed)
    flow = Glow(channels, steps=2, levels=levels, width=6, affine=affine, lu=lu, conditional=conditional).double()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith(("net.4.conv.weight", "prior.conv.weight", "scale")) and "actnorm" not in name:
                parameter.normal_(0, 0.05)
    return flow


FLOWS = st.builds(
    random_flow,
    st.integers(0, 1000),
    st.integers(1, 3),
    st.integers(1, 2),
    affine=st.booleans(),
    lu=st.booleans(),
    conditional=st.booleans(),
)


def case(flow: Glow, images: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of random size, and their masks."""
    levels = len(flow.blocks)
    channels = flow.get_parameter("blocks.0.flows.0.actnorm.loc").shape[1] // 4
    height, width = 2**levels, 2 * 2**levels
    x = torch.randn(images, channels, height, width, dtype=torch.float64)
    return x, (torch.rand(images, 1, 16 * height, 16 * width) > 0.5).double()


@settings(max_examples=15, deadline=None)
@given(FLOWS)
def test_the_inverse_returns_the_input(flow: Glow):
    x, masks = case(flow)
    with torch.no_grad():
        result = flow(x, masks)
        assert torch.allclose(flow.inverse(result.latents, masks), x, atol=1e-8)
        assert sum(each.numel() for each in result.latents) == x.numel()


@settings(max_examples=6, deadline=None)
@given(FLOWS)
def test_the_log_determinant_is_that_of_the_jacobian(flow: Glow):
    x, masks = case(flow, images=1)
    with torch.no_grad():
        logdet = flow(x, masks).logdet

    def latents(flat: torch.Tensor) -> torch.Tensor:
        return torch.cat([each.flatten() for each in flow(flat.view_as(x), masks).latents])

    matrix = torch.autograd.functional.jacobian(latents, x.flatten())
    assert float(logdet.mean()) == pytest.approx(float(torch.linalg.slogdet(matrix).logabsdet), abs=1e-7)


@settings(max_examples=6, deadline=None)
@given(FLOWS)
def test_latent_variables_of_samples_are_those_of_the_noise(flow: Glow):
    """A sample from noise of zeros has the means of the prior as its latent variables: its density is the largest."""
    x, masks = case(flow)
    with torch.no_grad():
        shapes = [torch.zeros_like(each) for each in flow(x, masks).latents]
        best = flow(flow.sample(shapes, masks), masks)
        noise = [torch.randn_like(each) for each in shapes]
        other = flow(flow.sample(noise, masks), masks)
    # with the same density of the rest, the density of noise is lower by half of its squares
    assert len(shapes) > 1 or torch.allclose(best.log_p - other.log_p, noise[0].square().flatten(1).sum(dim=1) / 2)


def test_the_first_batch_sets_scale_and_shift():
    flow = random_flow(0, 3, 1, affine=False, lu=True, conditional=False)
    norm = flow.get_submodule("blocks.0.flows.0.actnorm")
    x = 3 * torch.randn(4, 3, 4, 6, dtype=torch.float64) + 2
    with torch.no_grad():
        y, _ = norm(squeeze(x))
    assert torch.allclose(y.mean(dim=(0, 2, 3)), torch.zeros(12, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(y.transpose(0, 1).flatten(1).std(dim=1), torch.ones(12, dtype=torch.float64), atol=1e-5)
    before = norm.get_parameter("loc").clone()
    with torch.no_grad():
        norm(squeeze(x + 5))
    assert torch.equal(norm.get_parameter("loc"), before)


def test_channels_of_a_squeezed_image():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert squeeze(x)[0, :, 0, 0].tolist() == [0, 1, 4, 5]
    assert torch.equal(unsqueeze(squeeze(x)), x)


@pytest.mark.parametrize(("lu", "first"), [(False, PlainConv), (True, LUConv)])
def test_the_last_level_always_has_the_lu_form(lu: bool, first: type):
    flow = Glow(2, steps=1, levels=2, width=4, lu=lu)
    kinds = [type(flow.get_submodule(f"blocks.{i}.flows.0.invconv")) for i in range(2)]
    assert kinds == [first, LUConv]


def test_an_untrained_flow_is_volume_preserving():
    """Rotations and couplings that add zero change no volume, apart from the initialisation of the scales."""
    flow = Glow(2, steps=2, levels=1, width=4)
    for name, buffer in flow.named_buffers():
        if name.endswith("initialized"):
            buffer.fill_(1)
    assert float(flow(torch.randn(2, 2, 4, 4)).logdet.detach()) == pytest.approx(0, abs=1e-4)


def test_bits_are_an_absolute_value():
    better = bits_per_dim(torch.tensor([1000.0]), torch.tensor(0.0), 10)
    assert float(better) == pytest.approx(1000 / (10 * 0.6931472) - 5, rel=1e-5)


def test_wrong_inputs_are_refused():
    with pytest.raises(ConfigError, match="multiples of 4"):
        Glow(2, steps=1, levels=2, width=4)(torch.zeros(1, 2, 6, 4))
    with pytest.raises(ConfigError, match="needs the masks"):
        Glow(2, steps=1, levels=1, width=4, conditional=True)(torch.zeros(1, 2, 4, 4))
