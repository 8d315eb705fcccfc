"""`torch.ops.visdeploy.ms_deform_attn`: goldens, gradients, fallback, compile, export, opcheck."""

import importlib
import warnings

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.support import GRADIENTS, INPUTS, MSDA, error, golden, random_case, tolerances
from visdeploy_plugins import OpError
from visdeploy_plugins.torch_ops import ms_deform_attn, ms_deform_attn_reference

pytestmark = pytest.mark.isa

FLOATING = (INPUTS[0], *INPUTS[3:])


def tensors(case, *, grad=False, dtype=None):
    inputs = [torch.from_numpy(case[name].copy()) for name in INPUTS]
    if dtype:
        inputs = [each.to(dtype) if each.is_floating_point() else each for each in inputs]
    return [each.requires_grad_(grad and each.is_floating_point()) for each in inputs]


def small_case(**sizes):
    return random_case(np.random.default_rng(11), [(5, 6), (2, 3)], **sizes)


@pytest.mark.parametrize("name", MSDA)
def test_forward_and_gradients_equal_golden(shared, name, either):
    case = golden(shared, name)
    inputs = tensors(case, grad=True)
    output = ms_deform_attn(*inputs)
    assert error(output.detach().numpy(), case["output"]) <= tolerances(shared)["output"]
    output.backward(torch.from_numpy(case["grad_output"]))
    for each, tensor in zip(GRADIENTS, (inputs[0], inputs[3], inputs[4]), strict=True):
        seen, expected = tensor.grad.numpy(), case[each]
        if each == "grad_sampling_locations" and either == "fallback":
            differentiable = case["grad_sampling_locations_differentiable"]
            seen, expected = seen[differentiable], expected[differentiable]
        assert error(seen, expected) <= tolerances(shared)["gradients"], each


@pytest.mark.parametrize("name", ["msda_module_ref2", "msda_module_ref4"])
def test_inside_an_attention_module_equals_golden(shared, name, either):
    case = golden(shared, name)
    weights, query, flat = seeded_module(shared, name, case)
    output = attention_module(case, weights, query, flat)
    assert error(output.detach().numpy(), case["output"]) <= tolerances(shared)["output"]
    output.backward(torch.from_numpy(case["grad_output"]))
    grads = {"grad_query": query.grad, "grad_input_flatten": flat.grad}
    grads |= {f"grad/{key}": weight.grad for key, weight in weights.items()}
    for key, grad in grads.items():
        assert error(grad.numpy(), case[key]) <= tolerances(shared)["gradients"], key


def seeded_module(shared, name, case):
    spec = importlib.util.spec_from_file_location("seeded", shared / "goldens" / "seeded.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    keys = [key.removeprefix("grad/") for key in case if key.startswith("grad/")]
    weights = {key: torch.from_numpy(seeded.seeded_array(f"{name}.{key}", case[f"grad/{key}"].shape)) for key in keys}
    inputs = [torch.from_numpy(case[key]) for key in ("query", "input_flatten")]
    return tuple(
        value.requires_grad_() if isinstance(value, torch.Tensor) else {k: v.requires_grad_() for k, v in value.items()}
        for value in (weights, *inputs)
    )


def attention_module(case, weights, query, flat):
    """Return the attention module of Deformable DETR around the operator."""
    heads, points = {24: (4, 3), 16: (2, 2)}[query.shape[-1]]
    shapes = torch.from_numpy(case["spatial_shapes"])
    reference = torch.from_numpy(case["reference_points"])[:, :, None, :, None]
    batch, queries, levels = query.shape[0], query.shape[1], len(shapes)

    def linear(key, tensor):
        return torch.nn.functional.linear(tensor, weights[f"{key}.weight"], weights[f"{key}.bias"])

    value = linear("value_proj", flat)
    if "padding_mask" in case:
        value = value.masked_fill(torch.from_numpy(case["padding_mask"])[..., None], 0.0)
    offsets = linear("sampling_offsets", query).view(batch, queries, heads, levels, points, 2)
    logits = linear("attention_weights", query).view(batch, queries, heads, levels * points)
    if reference.shape[-1] == 2:
        locations = reference + offsets / shapes.flip(1)[:, None]
    else:
        locations = reference[..., :2] + offsets / points * reference[..., 2:] * 0.5
    shares = logits.softmax(-1).view(batch, queries, heads, levels, points)
    starts = torch.from_numpy(case["level_start_index"])
    value = value.view(batch, flat.shape[1], heads, -1)
    return linear("output_proj", ms_deform_attn(value, shapes, starts, locations.contiguous(), shares))


def test_kernel_equals_reference_in_float64(operators):
    case = small_case(heads=3, channels=11, batch=2)
    mine, theirs = (tensors(case, grad=True, dtype=torch.float64) for _ in range(2))
    outputs = ms_deform_attn(*mine), ms_deform_attn_reference(*theirs)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_as_good_as_its_inputs(operators, dtype):
    """Against float64 on the same rounded inputs, only the rounding of the result is left."""
    inputs = tensors(small_case(channels=19), dtype=dtype)
    exact = ms_deform_attn_reference(*(each.double() if each.is_floating_point() else each for each in inputs))
    output = ms_deform_attn(*inputs)
    assert output.dtype == dtype
    step = torch.finfo(dtype).eps
    assert ((output.double() - exact).abs() <= 0.51 * step * exact.abs() + 1e-5).all()


def test_half_gradients_are_summed_in_float32(operators):
    case = small_case(channels=8, queries=500)
    half, single = tensors(case, grad=True, dtype=torch.float16), None
    single = [each.detach().float().requires_grad_() if each.is_floating_point() else each for each in half]
    ms_deform_attn(*half).float().sum().backward()
    ms_deform_attn(*single).sum().backward()
    assert half[0].grad.dtype == torch.float16
    # One rounding, relative to the value or in steps of the smallest half.
    torch.testing.assert_close(half[0].grad, single[0].grad.half(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sizes", [{}, {"batch": 2, "channels": 5}, {"queries": 0}], ids=str)
def test_opcheck(operators, sizes):
    for grad in (False, True):
        torch.library.opcheck(ms_deform_attn, tensors(small_case(**sizes), grad=grad))


def test_export_keeps_the_op(operators):
    class Attention(torch.nn.Module):
        def forward(self, value, shapes, starts, locations, weights):
            return ms_deform_attn(value, shapes, starts, locations, weights) * 2

    inputs = tensors(small_case())
    queries = torch.export.Dim("queries")
    dynamic = (None, None, None, {1: queries}, {1: queries})
    program = torch.export.export(Attention(), tuple(inputs), dynamic_shapes=dynamic)
    assert any(node.target == torch.ops.visdeploy.ms_deform_attn.default for node in program.graph.nodes)
    more = tensors(small_case(queries=9))
    torch.testing.assert_close(program.module()(*more), 2 * ms_deform_attn(*more))


def test_compile_does_not_break_the_graph(either):
    inputs = tensors(small_case(), grad=True)
    compiled = torch.compile(lambda *each: ms_deform_attn(*each).sum(), backend="aot_eager", fullgraph=True)
    compiled(*inputs).backward()
    plain = tensors(small_case(), grad=True)
    ms_deform_attn(*plain).sum().backward()
    torch.testing.assert_close(inputs[3].grad, plain[3].grad)


BAD = {
    "non-contiguous": ({0: lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)}, "tensor value is not contiguous"),
    "dtype": ({4: lambda t: t.double()}, r"attention_weights has the wrong dtype \(seen: float64; expected: float32\)"),
    "shape": ({3: lambda t: t[..., :1].contiguous()}, r"sampling_locations has the wrong shape \(seen: .*expected:"),
    "rank": ({0: lambda t: t[0]}, r"value has the wrong number of dimensions \(seen: 3 in .*; expected: 4\)"),
    "zero level": ({1: lambda t: t * torch.tensor([[0], [1]])}, "tensor spatial_shapes"),
    "start": ({2: lambda t: t + 1}, r"level_start_index.*\(seen: .*1.*; expected: .*0"),
    "tokens": ({0: lambda t: t[:, 1:].contiguous()}, "tensor spatial_shapes"),
    "no points": ({3: lambda t: t[..., :0, :].contiguous(), 4: lambda t: t[..., :0]}, "at least one head"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(either, bad):
    spoil, message = BAD[bad]
    inputs = [spoil.get(index, lambda t: t)(each) for index, each in enumerate(tensors(small_case()))]
    with pytest.raises(OpError, match=f"ms_deform_attn: .*{message}"):
        ms_deform_attn(*inputs)


def test_fallback_says_so_once(without_library):
    inputs = tensors(small_case())
    with pytest.warns(RuntimeWarning, match=r"visdeploy::ms_deform_attn runs its PyTorch reference on cpu: not built"):
        first = ms_deform_attn(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(first, ms_deform_attn(*inputs))


def test_kernel_is_never_passed_over(operators, monkeypatch):
    module = importlib.import_module("visdeploy_plugins.torch_ops.ms_deform_attn")
    for name in ("ms_deform_attn_reference", "ms_deform_attn_reference_backward"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("the reference was dispatched to"))
    ms_deform_attn(*tensors(small_case(), grad=True)).sum().backward()


def test_half_fallback_computes_in_float32(without_library):
    inputs = tensors(small_case(), dtype=torch.bfloat16)
    exact = ms_deform_attn_reference(*(each.double() if each.is_floating_point() else each for each in inputs))
    with pytest.warns(RuntimeWarning):
        output = ms_deform_attn(*inputs)
    torch.testing.assert_close(output.double(), exact, rtol=4e-3, atol=1e-5)
