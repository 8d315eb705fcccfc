"""`torch.ops.visdeploy.deform_conv`: goldens, gradients, fallback, compile, export, opcheck."""

import importlib
import warnings

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.deform_conv_support import DCN, SHAPES, keywords, random_case
from tests.visdeploy_plugins.support import error, golden, tolerances
from visdeploy_plugins import OpError
from visdeploy_plugins.torch_ops import deform_conv, deform_conv_reference

pytestmark = pytest.mark.isa

INPUTS = ("input", "offset", "weight", "mask", "bias")
PLAIN = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "offset_groups": 1}


def tensors(case, *, grad=False, dtype=None):
    """Return the five inputs in order, None for those that the case lacks."""
    inputs = [torch.from_numpy(case[name].copy()).to(dtype) if name in case else None for name in INPUTS]
    return [None if each is None else each.requires_grad_(grad) for each in inputs]


def small_case(**shape):
    return random_case(np.random.default_rng(51), **shape)


@pytest.mark.parametrize("name", DCN)
def test_forward_and_gradients_equal_golden(shared, name, either):
    case = golden(shared, name)
    inputs = tensors(case, grad=True)
    output = deform_conv(*inputs, **keywords(case))
    assert error(output.detach().numpy(), case["output"]) <= tolerances(shared)["output"]
    output.backward(torch.from_numpy(case["grad_output"]))
    for each, tensor in zip(INPUTS, inputs, strict=True):
        if tensor is not None:
            assert error(tensor.grad.numpy(), case[f"grad_{each}"]) <= tolerances(shared)["gradients"], each


@pytest.mark.parametrize("name", DCN)
def test_reference_equals_golden_through_autograd(shared, name):
    case = golden(shared, name)
    inputs = tensors(case, grad=True)
    output = deform_conv_reference(*inputs, **keywords(case))
    assert error(output.detach().numpy(), case["output"]) <= tolerances(shared)["output"]
    output.backward(torch.from_numpy(case["grad_output"]))
    for each, tensor in zip(INPUTS, inputs, strict=True):
        if tensor is not None:
            assert error(tensor.grad.numpy(), case[f"grad_{each}"]) <= tolerances(shared)["gradients"], each


def test_zero_offsets_are_an_ordinary_convolution(either):
    case = small_case(channels=6, outputs=8, groups=2, stride=(2, 1), padding=(2, 1, 2, 1), dilation=(1, 2))
    image, offset, weight, _, bias = tensors(case)
    output = deform_conv(image, torch.zeros_like(offset), weight, None, bias, **keywords(case))
    expected = torch.nn.functional.conv2d(image, weight, bias, (2, 1), (2, 1), (1, 2), 2)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_as_good_as_its_inputs(operators, dtype):
    """Against float64 on the same rounded inputs, only the rounding of the result is left."""
    case = small_case(channels=19)
    inputs = tensors(case, dtype=dtype)
    exact = deform_conv_reference(*(each.double() for each in inputs), **keywords(case))
    output = deform_conv(*inputs, **keywords(case))
    assert output.dtype == dtype
    assert ((output.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs() + 2e-5).all()


def test_half_gradients_are_summed_in_float32(either):
    case = small_case(batch=2, size=(9, 9))
    half = tensors(case, grad=True, dtype=torch.float16)
    single = [each.detach().float().requires_grad_() for each in half]
    deform_conv(*half, **keywords(case)).float().sum().backward()
    deform_conv(*single, **keywords(case)).sum().backward()
    for a, b in zip(half, single, strict=True):
        assert a.grad.dtype == torch.float16
        torch.testing.assert_close(a.grad, b.grad.half(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "shape", ["plain", "groups cross offset groups", "v1 without bias", "all pads differ", "empty"]
)
def test_opcheck(operators, shape):
    case = small_case(batch=0) if shape == "empty" else small_case(**SHAPES[shape])
    for grad in (False, True):
        torch.library.opcheck(deform_conv, tensors(case, grad=grad), keywords(case))


class Layer(torch.nn.Module):
    """A deformable convolution v2 with its own offsets and masks, as methods use it."""

    def __init__(self, *, bias=False):
        super().__init__()
        torch.manual_seed(0)
        self.modulate = torch.nn.Conv2d(6, 27, 3, padding=1)
        self.weight = torch.nn.Parameter(torch.randn(4, 6, 3, 3))
        self.bias = torch.nn.Parameter(torch.randn(4)) if bias else None

    def forward(self, image):
        offset, mask = self.modulate(image).split([18, 9], 1)
        return deform_conv(image, offset.contiguous(), self.weight, mask.sigmoid(), self.bias, **PLAIN)


def test_export_keeps_the_op(operators):
    layer = Layer()
    dynamic = (
        {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=3), 3: torch.export.Dim("width", min=3)},
    )
    program = torch.export.export(layer, (torch.randn(2, 6, 8, 9),), dynamic_shapes=dynamic)
    assert any(node.target == torch.ops.visdeploy.deform_conv.default for node in program.graph.nodes)
    image = torch.randn(3, 6, 5, 12)
    torch.testing.assert_close(program.module()(image), layer(image))


def test_compile_does_not_break_the_graph(either):
    layer, image = Layer(), torch.randn(2, 6, 5, 7)
    layer(image).sum().backward()
    plain = [each.grad.clone() for each in layer.parameters()]
    layer.zero_grad()
    torch.compile(layer, backend="aot_eager", fullgraph=True)(image).sum().backward()
    for each, expected in zip(layer.parameters(), plain, strict=True):
        torch.testing.assert_close(each.grad, expected)


def _cut(index, cut):
    return lambda inputs, params: inputs.__setitem__(index, cut(inputs[index]).contiguous())


BAD = {
    "non-contiguous": (lambda i, p: i.__setitem__(0, i[0].mT.contiguous().mT), "tensor input is not contiguous"),
    "dtype": (
        lambda i, p: i.__setitem__(1, i[1].double()),
        r"offset has the wrong dtype \(seen: float64; exp.*: float32",
    ),
    "integers": (lambda i, p: i.__setitem__(0, i[0].long()), r"tensor input has the wrong dtype \(seen: .*int64"),
    "rank": (_cut(0, lambda t: t[0]), r"input has the wrong number of dimensions \(seen: 3 in .*; expected: 4\)"),
    "offset": (
        _cut(1, lambda t: t[:, 1:]),
        r"offset has the wrong shape \(seen: \[1, 17, 5, 6\]; expected: \[1, 18, 5",
    ),
    "weight": (_cut(2, lambda t: t[:, 1:]), r"weight has the wrong shape \(seen: \[4, 3, 3, 3\]; expected: \[4, 4, 3"),
    "mask": (_cut(3, lambda t: t[..., 1:]), r"mask has the wrong shape"),
    "bias": (_cut(4, lambda t: t[1:]), r"bias has the wrong shape \(seen: \[3\]; expected: \[4\]\)"),
    "groups": (lambda i, p: p.update(groups=3), r"parameter groups \(seen: 3; expected: a divisor of"),
    "offset groups": (
        lambda i, p: p.update(offset_groups=0),
        r"parameter offset_groups \(seen: 0; expected: a divisor",
    ),
    "stride": (lambda i, p: p.update(stride=[-1, 1]), r"parameter stride \(seen: \[-1, 1\]; expected: each at least 1"),
    "two strides": (lambda i, p: p.update(stride=[1]), r"parameter stride \(seen: 1 numbers; expected: 2\)"),
    "three paddings": (
        lambda i, p: p.update(padding=[1, 1, 1]),
        r"parameter padding \(seen: 3 numbers; expected: 2 or 4",
    ),
    "padding": (lambda i, p: p.update(padding=[-1, 1]), r"parameter padding .*expected: each at least 0"),
    "kernel": (lambda i, p: p.update(dilation=[9, 1]), r"tensor weight, kernel"),
    "no pixels": (_cut(0, lambda t: t[..., :0]), r"tensor input .*expected: at least one channel"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_calls_are_named(either, bad):
    spoil, message = BAD[bad]
    inputs, params = tensors(small_case()), {**PLAIN}
    spoil(inputs, params)
    with pytest.raises(OpError, match=f"deform_conv: .*{message}"):
        deform_conv(*inputs, **params)


def test_fallback_says_so_once(without_library):
    inputs = tensors(small_case())
    with pytest.warns(RuntimeWarning, match=r"visdeploy::deform_conv runs its PyTorch reference on cpu: not built"):
        first = deform_conv(*inputs, **PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(first, deform_conv(*inputs, **PLAIN))


def test_kernel_is_never_passed_over(operators, monkeypatch):
    module = importlib.import_module("visdeploy_plugins.torch_ops.deform_conv")
    for name in ("deform_conv_reference", "deform_conv_reference_backward"):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("the reference was dispatched to"))
    deform_conv(*tensors(small_case(), grad=True), **PLAIN).sum().backward()
