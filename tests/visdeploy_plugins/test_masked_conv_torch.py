"""`torch.ops.visdeploy.masked_conv`: goldens, gradients, fallback, compile, export, opcheck."""

import importlib
import warnings

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.masked_conv_support import GOLDENS, INPUTS, SHAPES, keywords, random_case
from tests.visdeploy_plugins.support import error, golden
from visdeploy_plugins import OpError
from visdeploy_plugins.torch_ops import masked_conv, masked_conv_reference

pytestmark = pytest.mark.isa


def tensors(case, *, grad=False, dtype=None):
    """Return x, mask, weight, and bias or None."""
    inputs = [torch.from_numpy(case[name].copy()) if name in case else None for name in INPUTS]
    inputs = [each if each is None or dtype is None else each.to(dtype) for each in inputs]
    return [each if each is None or i == 1 else each.requires_grad_(grad) for i, each in enumerate(inputs)]


def small_case(**sizes):
    return random_case(np.random.default_rng(11), **sizes)


@pytest.mark.parametrize("name", GOLDENS)
def test_forward_and_gradients_equal_golden(shared, name, either):
    case = golden(shared, name)
    inputs = tensors(case, grad=True)
    output = masked_conv(*inputs, **keywords(case))
    assert np.abs(output.detach().numpy() - case["y"]).max() <= 1e-5
    assert not output.detach()[(torch.from_numpy(case["mask"]) > 0).logical_not()[:, None].expand_as(output)].any()
    output.backward(torch.from_numpy(case["grad_y"]))
    for key, tensor in zip(("grad_x", "grad_weight", "grad_bias"), (inputs[0], *inputs[2:]), strict=True):
        if tensor is not None:
            assert np.abs(tensor.grad.numpy() - case[key]).max() <= 1e-5, key
    assert inputs[1].grad is None


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_reference_in_float64(operators, shape):
    case = small_case(**SHAPES[shape], dtype=np.float64)
    mine, theirs = (tensors(case, grad=True) for _ in range(2))
    outputs = masked_conv(*mine, **keywords(case)), masked_conv_reference(*theirs, **keywords(case))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        if a is not None and a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)


def test_gradients_equal_finite_differences(either):
    x, mask, weight, bias = tensors(small_case(size=(4, 3), groups=2, dtype=np.float64), grad=True)
    options = {"stride": 2, "padding": 1, "groups": 2}
    mask = mask[:, ::2, ::2].contiguous()
    assert torch.autograd.gradcheck(lambda *each: masked_conv(each[0], mask, *each[1:], **options), (x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_as_good_as_its_inputs(either, dtype):
    """Against float64 on the same rounded inputs, only the rounding of the result is left."""
    case = small_case(channels=19)
    inputs = tensors(case, dtype=dtype)
    exact = masked_conv_reference(*(each.double() for each in inputs), **keywords(case))
    output = masked_conv(*inputs, **keywords(case))
    assert output.dtype == dtype
    assert ((output.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs() + 1e-5).all()


@pytest.mark.parametrize("mask", [torch.float16, torch.float32, torch.bool])
def test_half_gradients_are_summed_in_float32(operators, mask):
    case = small_case(channels=3, size=(30, 40))
    half = tensors(case, grad=True, dtype=torch.float16)
    half[1] = half[1] > 0 if mask == torch.bool else half[1].to(mask)
    single = [half[1] if i == 1 else each.detach().float().requires_grad_() for i, each in enumerate(half)]
    single[1] = single[1] > 0
    masked_conv(*half, **keywords(case)).float().sum().backward()
    masked_conv(*single, **keywords(case)).sum().backward()
    for i in (0, 2, 3):
        assert half[i].grad.dtype == torch.float16
        torch.testing.assert_close(half[i].grad, single[i].grad.half(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sizes", [{}, {"batch": 2, "channels": 5, "stride": (2, 1)}, {"bias": False}], ids=str)
def test_opcheck(operators, sizes):
    case = small_case(**sizes)
    for grad in (False, True):
        torch.library.opcheck(masked_conv, tensors(case, grad=grad), keywords(case))


def test_one_number_stands_for_both_axes(operators):
    case = small_case(stride=(2, 2), dilation=(2, 2), padding=(2, 2))
    pairs, numbers = keywords(case), {"stride": 2, "dilation": 2, "padding": 2}
    assert torch.equal(masked_conv(*tensors(case), **pairs), torch.ops.visdeploy.masked_conv(*tensors(case), **numbers))


def test_export_keeps_the_op(operators):
    class Gated(torch.nn.Module):
        def forward(self, x, mask, weight, bias):
            return masked_conv(x, mask, weight, bias, padding=(1, 1)) * 2

    height, width = torch.export.Dim("height"), torch.export.Dim("width")
    dynamic = ({2: height, 3: width}, {1: height, 2: width}, None, None)
    program = torch.export.export(Gated(), tuple(tensors(small_case())), dynamic_shapes=dynamic)
    assert any(node.target == torch.ops.visdeploy.masked_conv.default for node in program.graph.nodes)
    more = tensors(small_case(size=(9, 4)))
    torch.testing.assert_close(program.module()(*more), 2 * masked_conv(*more, padding=(1, 1)))


def test_compile_does_not_break_the_graph(either):
    case = small_case()
    inputs, plain = (tensors(case, grad=True) for _ in range(2))
    compiled = torch.compile(
        lambda *each: masked_conv(*each, padding=(1, 1)).sum(), backend="aot_eager", fullgraph=True
    )
    compiled(*inputs).backward()
    masked_conv(*plain, padding=(1, 1)).sum().backward()
    for i in (0, 2, 3):
        torch.testing.assert_close(inputs[i].grad, plain[i].grad)


PLAIN = {"padding": (1, 1)}
BAD = {
    "non-contiguous": ({0: lambda t: t.transpose(2, 3).contiguous().transpose(2, 3)}, {}, "tensor x is not contiguous"),
    "dtype": ({2: lambda t: t.double()}, {}, r"weight has the wrong dtype \(seen: float64; expected: float32\)"),
    "mask dtype": ({1: lambda t: t.long()}, {}, r"mask has the wrong dtype \(seen: int64; expected: float32 or bool\)"),
    "rank": ({0: lambda t: t[0]}, {}, r"x has the wrong number of dimensions \(seen: 3 in .*; expected: 4\)"),
    "mask size": ({1: lambda t: t[:, 1:].contiguous()}, {}, r"mask has the wrong shape \(seen: .*expected: \[1, 5, 6"),
    "bias": ({3: lambda t: t[1:]}, {}, r"bias has the wrong shape \(seen: \[3\]; expected: \[4\]\)"),
    "weight": ({2: lambda t: t[:, 1:].contiguous()}, {}, r"weight has the wrong shape \(seen: \[4, 3, 3, 3\]; exp"),
    "groups": ({}, {"groups": 3}, r"parameter groups \(seen: 3; expected: a divisor of the 4 input and 4 output"),
    "stride": ({}, {"stride": (1, -1)}, r"parameter stride \(seen: \[1, -1\]; expected: two numbers from 1"),
    "padding": ({}, {"padding": (-1, 1)}, r"parameter padding \(seen: \[-1, 1\]"),
    "dilation": ({}, {"dilation": (1, 0)}, r"parameter dilation \(seen: \[1, 0\]"),
    "three strides": ({}, {"stride": (1, 1, 1)}, r"parameter stride \(seen: \[1, 1, 1\]; expected: two numbers"),
    "kernel": ({}, {"dilation": (9, 1)}, r"weight is larger than the padded input \(seen: 19 along axis 2"),
    "no channels": ({0: lambda t: t[:, :0].contiguous()}, {}, "tensor x has an impossible size"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(either, bad):
    spoil, options, message = BAD[bad]
    inputs = [spoil.get(index, lambda t: t)(each) for index, each in enumerate(tensors(small_case()))]
    with pytest.raises(OpError, match=f"masked_conv: .*{message}"):
        masked_conv(*inputs, **PLAIN | options)


def test_fallback_says_so_once(without_library):
    inputs = tensors(small_case())
    with pytest.warns(RuntimeWarning, match=r"visdeploy::masked_conv runs its PyTorch reference on cpu: not built"):
        first = masked_conv(*inputs, **PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(first, masked_conv(*inputs, **PLAIN))


def test_kernel_is_never_passed_over(operators, monkeypatch):
    module = importlib.import_module("visdeploy_plugins.torch_ops.masked_conv")
    for name in ("masked_conv_reference", "masked_conv_reference_backward"):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("the reference was dispatched to"))
    masked_conv(*tensors(small_case(), grad=True), **PLAIN).sum().backward()


def test_nan_does_not_come_through(either):
    """Into the output on either way; into the gradients not through the kernel, and the fallback's are conv2d's."""
    x, mask, weight, bias = tensors(small_case(size=(6, 8)), grad=True)
    with torch.no_grad():
        x[:, :, 3:], mask[:] = np.nan, -1
        mask[:, 1, 1] = 1
    output = masked_conv(x, mask, weight, bias, **PLAIN)
    assert output.isfinite().all()
    if either == "kernel":
        output.sum().backward()
        assert error(weight.grad.numpy(), x.detach()[:, :, :3, :3].expand(4, 4, 3, 3).numpy()) <= 1e-6
