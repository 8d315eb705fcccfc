"""Tensors beyond 2^31 elements, and so beyond 2^32 bytes: every index must be counted in 64 bits."""

import pytest
import torch

from visdeploy_plugins import torch_ops

pytestmark = pytest.mark.gpu
HALF = torch.float16
SIDE, CHANNELS = 4104, 64  # two maps of this side and channels exceed 2^31 elements; one does not
GIB = 2**30


def noise(device: torch.device, *shape: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device).normal_()


def second(tensor: torch.Tensor) -> torch.Tensor:
    """Return the second image alone."""
    return tensor[1:].clone()


@pytest.fixture
def maps(device, memory):
    memory(10 * GIB)
    found = noise(device, 2, CHANNELS, SIDE, SIDE)
    assert found.numel() > 2**31
    return found


def test_attention_values(device, maps):
    value = maps.view(2, SIDE * SIDE, 1, CHANNELS)
    index = torch.tensor([[SIDE, SIDE]], device=device), torch.tensor([0], device=device)
    locations, weights = noise(device, 2, 50, 1, 1, 4, 2).sigmoid(), noise(device, 2, 50, 1, 1, 4)
    whole = torch_ops.ms_deform_attn(value, *index, locations, weights)
    assert torch.equal(whole[1:], torch_ops.ms_deform_attn(second(value), *index, second(locations), second(weights)))


def test_attention_outputs(device, memory):
    memory(14 * GIB)
    queries, heads, channels = 2**20 + 40, 32, 64
    index = torch.tensor([[8, 8]], device=device), torch.tensor([0], device=device)
    value = noise(device, 1, 64, heads, channels)
    locations, weights = noise(device, 1, queries, heads, 1, 1, 2).sigmoid(), noise(device, 1, queries, heads, 1, 1)
    whole = torch_ops.ms_deform_attn(value, *index, locations, weights)
    assert whole.numel() > 2**31
    last = torch_ops.ms_deform_attn(value, *index, locations[:, -40:].contiguous(), weights[:, -40:].contiguous())
    assert torch.equal(whole[:, -40:], last)


def test_attention_gradients(device, memory):
    memory(28 * GIB)
    value = noise(device, 2, SIDE * SIDE, 1, CHANNELS, dtype=torch.float32).requires_grad_()
    index = torch.tensor([[SIDE, SIDE]], device=device), torch.tensor([0], device=device)
    locations = noise(device, 2, 50, 1, 1, 4, 2, dtype=torch.float32).sigmoid()
    weights = noise(device, 2, 50, 1, 1, 4, dtype=torch.float32)
    torch_ops.ms_deform_attn(value, *index, locations, weights).sum().backward()
    total = weights.sum((1, 2, 3, 4)).double() * CHANNELS  # bilinear shares of a point inside the map add up to one
    pixels = locations * SIDE - 0.5
    assert ((pixels > 0) & (pixels < SIDE - 1)).all()
    assert value.grad is not None
    found = torch.stack([value.grad[n].sum(dtype=torch.float64) for n in range(2)])
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-2)


def test_deform_conv_input(device, maps):
    weight, stride = noise(device, 8, CHANNELS, 3, 3), 64
    out = (SIDE - 1) // stride + 1
    offset, mask = noise(device, 2, 18, out, out), noise(device, 2, 9, out, out).sigmoid()
    options = {"stride": [stride] * 2, "padding": [1, 1], "dilation": [1, 1], "groups": 1, "offset_groups": 1}
    whole = torch_ops.deform_conv(maps, offset, weight, mask, None, **options)
    alone = torch_ops.deform_conv(second(maps), second(offset), weight, second(mask), None, **options)
    assert torch.equal(whole[1:], alone)


def test_masked_conv_input(device, maps):
    weight, stride = noise(device, 16, CHANNELS, 3, 3), 64
    out = (SIDE - 1) // stride + 1
    mask = noise(device, 2, out, out) > 0
    options = {"stride": [stride] * 2, "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    whole = torch_ops.masked_conv(maps, mask, weight, None, **options)
    assert torch.equal(whole[1:], torch_ops.masked_conv(second(maps), second(mask), weight, None, **options))


def test_roi_align_features(device, maps):
    corners = torch.rand(20, 2, device=device) * (SIDE - 500)
    rois = torch.cat([corners, corners + 20 + torch.rand(20, 2, device=device) * 400], 1)
    images = torch.arange(20, device=device) % 2
    options = {"output_size": [7, 7], "spatial_scales": [1.0], "sampling_ratio": 2, "finest_scale": 56.0}
    whole = torch_ops.multi_level_roi_align([maps], rois, images, **options)
    of_second = images == 1
    alone = torch_ops.multi_level_roi_align([second(maps)], rois[of_second], images[of_second] - 1, **options)
    assert torch.equal(whole[of_second], alone)
