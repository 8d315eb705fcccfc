"""Masked group normalisation, and the gated residual block that it forms with masked convolution."""

import numpy as np
import onnxruntime
import pytest
import torch

from tests.visdeploy_plugins.support import golden
from visdeploy_plugins import OpError
from visdeploy_plugins.onnx_functions import add_function_bodies, translation_table
from visdeploy_plugins.torch_ops import masked_conv, masked_group_norm

pytestmark = pytest.mark.isa

GROUP_NORMS = [f"maskedconv_gn_{name}" for name in ("ones", "random", "single", "zeros")]
BLOCKS = [f"maskedconv_block_{name}" for name in ("all_off", "mixed", "mostly_on")]
GROUPS = 32


def arrays(shared, name):
    return {key: torch.from_numpy(each) for key, each in golden(shared, name).items()}


def block(x, gate, parameter):
    """Compute the gated residual block of Temporal Pyramid Routing (Li et al., TPAMI 2023) in its evaluation form."""
    near = torch.nn.functional.max_pool2d(gate, 3, stride=1, padding=1)[:, 0]
    here, h = gate[:, 0], x
    for layer, mask in (("conv1", near), ("conv2", here)):
        h = masked_conv(h, mask, parameter[f"{layer}.weight"], padding=(1, 1))
        affine = parameter[f"{layer}.norm.weight"], parameter[f"{layer}.norm.bias"]
        h = masked_group_norm(h, mask, *affine, groups=GROUPS)
        h = torch.relu(h) if layer == "conv1" else h
    return torch.relu(gate * h + x)


def parameters(case):
    prefix = "param/bottleneck."
    return {key.removeprefix(prefix): each for key, each in case.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", GROUP_NORMS)
def test_equals_golden(shared, operators, name):
    case = arrays(shared, name)
    conv = masked_conv(case["x"], case["mask"], case["weight"], padding=(1, 1))
    torch.testing.assert_close(conv, case["y_conv"], rtol=0, atol=1e-5)
    groups, eps = int(case["gn_groups"]), float(case["gn_eps"])
    normal = masked_group_norm(conv, case["mask"], case["gn_weight"], case["gn_bias"], groups=groups, eps=eps)
    torch.testing.assert_close(normal, case["y_gn"], rtol=0, atol=2e-5)
    torch.testing.assert_close(normal.relu(), case["y_gn_relu"], rtol=0, atol=2e-5)
    assert not normal[~(case["mask"] > 0)[:, None].expand_as(normal)].any()


@pytest.mark.parametrize("name", BLOCKS)
def test_gated_block_equals_golden(shared, operators, name):
    case = arrays(shared, name)
    seen = block(case["x"], case["gate"].reshape(1, 1, *case["x"].shape[2:]), parameters(case))
    torch.testing.assert_close(seen, case["y_eval"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_exported_block_equals_golden_with_and_without_library(shared, custom_ops, name):
    class Block(torch.nn.Module):
        def __init__(self, parameter):
            super().__init__()
            self.keys = list(parameter)
            self.values = torch.nn.ParameterList(parameter.values())

        def forward(self, x, gate):
            return block(x, gate, dict(zip(self.keys, self.values, strict=True)))

    case = arrays(shared, name)
    x, gate = case["x"], case["gate"].reshape(1, 1, *case["x"].shape[2:])
    program = torch.onnx.export(
        Block(parameters(case)).eval(),
        (x, gate),
        dynamo=True,
        opset_version=20,
        custom_translation_table=translation_table(),
        input_names=["x", "gate"],
        verbose=False,
    )
    model = add_function_bodies(program.model_proto)
    assert [node.op_type for node in model.graph.node].count("MaskedConv") == 2
    assert not any("Normalization" in node.op_type for node in model.graph.node)
    for library in (None, custom_ops):
        options = onnxruntime.SessionOptions()
        if library:
            options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (seen,) = session.run(None, {"x": x.numpy(), "gate": gate.numpy()})
        assert np.abs(seen - case["y_eval"].numpy()).max() <= 2e-5


def test_everything_active_is_group_norm():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*size, generator=generator) for size in ((2, 12, 5, 4), (12,), (12,)))
    expected = torch.nn.functional.group_norm(x, 3, weight, bias, 1e-3)
    seen = masked_group_norm(x, torch.ones(2, 5, 4, dtype=torch.bool), weight, bias, groups=3, eps=1e-3)
    torch.testing.assert_close(seen, expected)


def test_samples_have_statistics_of_their_own_and_nan_stays_outside():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 5, 4, generator=generator)
    mask = torch.rand(3, 5, 4, generator=generator) - 0.5
    mask[1] = 0
    mask[2, 0, 0] = torch.nan
    x[~(mask > 0)[:, None].expand_as(x)] = torch.nan
    weight, bias = torch.randn(4, generator=generator), torch.randn(4, generator=generator)
    seen = masked_group_norm(x, mask, weight, bias, groups=2)
    assert not seen[1].any()
    for n, group in np.ndindex(3, 2):
        channels, active = slice(2 * group, 2 * group + 2), mask[n] > 0
        values = x[n, channels, active].double()
        if values.numel():
            normal = (values - values.mean()) / (values.var(correction=0) + 1e-5).sqrt()
            expected = (normal * weight[channels, None] + bias[channels, None]).float()
            torch.testing.assert_close(seen[n, channels, active], expected, rtol=1e-5, atol=1e-5)


def test_the_result_inside_is_the_same_where_the_outside_is_left_open():
    generator = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(*size, generator=generator) for size in ((3, 6, 5, 4), (6,), (6,)))
    mask = torch.rand(3, 5, 4, generator=generator) - 0.5
    mask[1] = -1
    active = (mask > 0)[:, None].expand_as(x)
    x = torch.where(active, x, 0.0)
    left, right = (masked_group_norm(x, mask, weight, bias, groups=2, inside_only=each) for each in (True, False))
    assert torch.equal(left[active], right[active])
    assert left.isfinite().all()


def test_halves_have_float32_statistics():
    x = (100 + torch.randn(1, 8, 40, 50, generator=torch.Generator().manual_seed(2))).half()
    mask, ones = torch.ones(1, 40, 50), torch.ones(8, dtype=torch.float16)
    seen = masked_group_norm(x, mask, ones, 0 * ones, groups=2)
    assert seen.dtype == torch.float16
    exact = masked_group_norm(x.double(), mask, ones.double(), 0 * ones.double(), groups=2)
    torch.testing.assert_close(seen.double(), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("groups", [0, -1, 3])
def test_groups_that_do_not_divide_are_refused(groups):
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(OpError, match=rf"masked_group_norm: parameter groups \(seen: {groups}; expected: a divisor"):
        masked_group_norm(x, x[:, 0], x[0, :, 0, 0], x[0, :, 0, 0], groups=groups)
