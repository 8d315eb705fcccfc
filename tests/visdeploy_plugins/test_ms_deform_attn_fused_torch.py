"""`torch.ops.visdeploy.ms_deform_attn_fused`: goldens of the whole module, gradients, compile, export, opcheck."""

import warnings

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.ms_deform_attn_fused_support import FUSED_INPUTS, fused_case
from tests.visdeploy_plugins.support import error, golden, tolerances
from tests.visdeploy_plugins.test_ms_deform_attn_torch import seeded_module
from visdeploy_plugins import OpError, native
from visdeploy_plugins.torch_ops import binding, ms_deform_attn_fused, ms_deform_attn_fused_reference

pytestmark = pytest.mark.isa


def tensors(case, *, grad=False, dtype=None):
    inputs = [torch.from_numpy(case[name].copy()) for name in FUSED_INPUTS]
    if dtype:
        inputs = [each.to(dtype) if each.is_floating_point() else each for each in inputs]
    return [each.requires_grad_(grad and each.is_floating_point()) for each in inputs]


def small_case(**sizes):
    return fused_case(np.random.default_rng(51), [(5, 6), (2, 3)], **sizes)


@pytest.fixture(params=["kernel", "fallback"])
def either(request, monkeypatch):
    """Run a test with our kernel, and with the fallback for packages without libraries."""
    if request.param == "kernel":
        request.getfixturevalue("operators")
    else:
        monkeypatch.setattr(native, "load", lambda: (None, "not built, says the test"))
    binding._warn_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if request.param == "fallback" else "error", RuntimeWarning)
        yield request.param
    binding._warn_once.cache_clear()


@pytest.mark.parametrize("name", ["msda_module_ref2", "msda_module_ref4"])
def test_whole_module_equals_golden(shared, name, either):
    case = golden(shared, name)
    weights, query, flat = seeded_module(shared, name, case)
    heads, points = {24: (4, 3), 16: (2, 2)}[query.shape[-1]]
    batch, queries, levels = query.shape[0], query.shape[1], len(case["spatial_shapes"])

    def linear(key, tensor):
        return torch.nn.functional.linear(tensor, weights[f"{key}.weight"], weights[f"{key}.bias"])

    value = linear("value_proj", flat)
    if "padding_mask" in case:
        value = value.masked_fill(torch.from_numpy(case["padding_mask"])[..., None], 0.0)
    sampled = ms_deform_attn_fused(
        value.view(batch, flat.shape[1], heads, -1),
        torch.from_numpy(case["spatial_shapes"]),
        torch.from_numpy(case["level_start_index"]),
        torch.from_numpy(case["reference_points"]),
        linear("sampling_offsets", query).view(batch, queries, heads, levels, points, 2),
        linear("attention_weights", query).view(batch, queries, heads, levels, points),
    )
    output = linear("output_proj", sampled)
    assert error(output.detach().numpy(), case["output"]) <= tolerances(shared)["output"]
    output.backward(torch.from_numpy(case["grad_output"]))
    grads = {"grad_query": query.grad, "grad_input_flatten": flat.grad}
    grads |= {f"grad/{key}": weight.grad for key, weight in weights.items()}
    for key, grad in grads.items():
        assert error(grad.numpy(), case[key]) <= tolerances(shared)["gradients"], key


@pytest.mark.parametrize("reference_size", [2, 4])
def test_gradients_equal_the_reference_in_float64(operators, reference_size):
    case = small_case(heads=3, channels=11, batch=2, reference_size=reference_size, queries=40)
    mine, theirs = (tensors(case, grad=True, dtype=torch.float64) for _ in range(2))
    outputs = ms_deform_attn_fused(*mine), ms_deform_attn_fused_reference(*theirs)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().sum().backward()
    for name, a, b in zip(FUSED_INPUTS, mine, theirs, strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("reference_size", [2, 4])
def test_gradients_equal_finite_differences(operators, reference_size):
    # Maps of one position have no kink near their middle, where finite differences would fail.
    case = fused_case(np.random.default_rng(52), [(1, 1)], points=3, reference_size=reference_size, dtype=np.float64)
    case["reference_points"] = 0.5 + 0.1 * case["reference_points"]
    case["sampling_offsets"] *= 0.02
    assert torch.autograd.gradcheck(ms_deform_attn_fused, tensors(case, grad=True))


@pytest.mark.parametrize("wide", [(), (3,), (3, 4, 5)], ids=["half", "references", "points"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(either, dtype, wide):
    inputs = tensors(small_case(channels=19), dtype=dtype)
    inputs = [each.float() if i in wide else each for i, each in enumerate(inputs)]
    leaves = [each.requires_grad_(each.is_floating_point()) for each in inputs]
    exact = ms_deform_attn_fused_reference(
        *(each.detach().double() if each.is_floating_point() else each for each in leaves)
    )
    output = ms_deform_attn_fused(*leaves)
    assert output.dtype == dtype
    assert ((output.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs() + 1e-5).all()
    output.float().sum().backward()
    assert all(each.grad is None or each.grad.dtype == each.dtype for each in leaves)
    assert leaves[4].grad.isfinite().all()


@pytest.mark.parametrize("sizes", [{}, {"batch": 2, "channels": 5, "reference_size": 4}, {"queries": 0}], ids=str)
def test_opcheck(operators, sizes):
    for grad in (False, True):
        torch.library.opcheck(ms_deform_attn_fused, tensors(small_case(**sizes), grad=grad))


def test_export_keeps_the_op(operators):
    class Attention(torch.nn.Module):
        def forward(self, value, shapes, starts, references, offsets, logits):
            return ms_deform_attn_fused(value, shapes, starts, references, offsets, logits) * 2

    queries = torch.export.Dim("queries")
    dynamic = (None, None, None, {1: queries}, {1: queries}, {1: queries})
    program = torch.export.export(Attention(), tuple(tensors(small_case())), dynamic_shapes=dynamic)
    assert any(node.target == torch.ops.visdeploy.ms_deform_attn_fused.default for node in program.graph.nodes)
    more = tensors(small_case(queries=9))
    torch.testing.assert_close(program.module()(*more), 2 * ms_deform_attn_fused(*more))


def test_compile_does_not_break_the_graph(either):
    inputs, plain = (tensors(small_case(reference_size=4), grad=True) for _ in range(2))
    compiled = torch.compile(lambda *each: ms_deform_attn_fused(*each).sum(), backend="aot_eager", fullgraph=True)
    compiled(*inputs).backward()
    ms_deform_attn_fused(*plain).sum().backward()
    for a, b in zip(inputs, plain, strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad)


BAD = {
    "references": ({3: lambda t: t[..., :1].contiguous()}, r"reference_points has the wrong shape \(seen: .*1\]"),
    "references' rank": ({3: lambda t: t[0]}, r"reference_points has the wrong number of dimensions \(seen: 3 in"),
    "references' dtype": ({3: lambda t: t.half()}, "reference_points has the wrong dtype"),
    "offsets' dtype": ({4: lambda t: t.double()}, r"sampling_offsets.*seen: float64; expected: float32\)"),
    "logits": ({5: lambda t: t[..., :1].contiguous()}, "attention_logits has the wrong shape"),
    "layout": ({4: lambda t: t.transpose(0, 1).contiguous().transpose(0, 1)}, "sampling_offsets is not contiguous"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(either, bad):
    spoil, message = BAD[bad]
    inputs = [spoil.get(index, lambda t: t)(each) for index, each in enumerate(tensors(small_case(batch=2)))]
    with pytest.raises(OpError, match=f"ms_deform_attn_fused: tensor {message}"):
        ms_deform_attn_fused(*inputs)
