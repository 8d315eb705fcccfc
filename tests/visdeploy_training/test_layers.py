import pytest
import torch
from torch import nn

from visdeploy_training.layers import ConvNorm, FrozenBatchNorm2d, coordinates, init_head


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (6, 10), (22, 39)])
def test_coordinates_are_linspaces_y_first(height: int, width: int):
    found = coordinates(torch.zeros(2, 7, height, width))
    y = torch.linspace(-1, 1, height).view(height, 1).expand(height, width)
    x = torch.linspace(-1, 1, width).view(1, width).expand(height, width)
    torch.testing.assert_close(found, torch.stack([y, x]).expand(2, 2, height, width), atol=1.2e-7, rtol=0)


@pytest.mark.parametrize("trainable", [False, True])
def test_frozen_batch_norm_is_the_formula_and_never_updates(trainable: bool):
    norm = FrozenBatchNorm2d(3, eps=1e-3, trainable=trainable)
    values = {k: torch.rand(3) + 0.5 for k in ("weight", "bias", "running_mean", "running_var")}
    norm.load_state_dict(values)
    x = torch.randn(2, 3, 4, 5)
    w, b, m, v = (values[k].view(1, 3, 1, 1) for k in ("weight", "bias", "running_mean", "running_var"))
    torch.testing.assert_close(norm.train()(x), (x - m) / torch.sqrt(v + 1e-3) * w + b)
    assert all(torch.equal(norm.state_dict()[k], value) for k, value in values.items())
    assert len(list(norm.parameters())) == (2 if trainable else 0)


def test_conv_norm_puts_norm_then_relu_behind_the_convolution():
    layer = ConvNorm(3, 8, 3, norm=nn.GroupNorm(2, 8), relu=True)
    assert set(layer.state_dict()) == {"weight", "bias", "norm.weight", "norm.bias"}
    x = torch.randn(1, 3, 6, 6)
    plain = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), layer.norm(plain).relu())


def test_init_head_is_kaiming_fan_out_with_zero_biases():
    layer = nn.Sequential(ConvNorm(64, 128, 3, norm=nn.GroupNorm(4, 128)))
    torch.manual_seed(0)
    init_head(layer)
    assert layer[0].weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert not layer[0].bias.any()
    assert torch.equal(layer[0].norm.weight, torch.ones(128))
