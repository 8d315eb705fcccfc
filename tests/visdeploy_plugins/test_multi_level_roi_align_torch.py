"""`torch.ops.visdeploy.multi_level_roi_align`: goldens, gradients, fallback, compile, export, opcheck."""

import importlib
import warnings

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.roi_align_support import features, golden_cases, random_case, settings_of
from tests.visdeploy_plugins.roi_align_torchvision import tensors_of, torchvision_align
from tests.visdeploy_plugins.support import error
from visdeploy_plugins import OpError
from visdeploy_plugins.torch_ops import multi_level_roi_align, multi_level_roi_align_reference

pytestmark = pytest.mark.isa


def small_case(**sizes):
    return random_case(np.random.default_rng(51), **{"rois": 9, "image": (48, 64), "levels": 2, **sizes})


@pytest.mark.parametrize("bins", [7, 14])
def test_forward_equals_golden(shared, bins, either):
    case = golden_cases(shared)[bins]
    output = multi_level_roi_align(*tensors_of(case), **settings_of(case)).numpy()
    # The fallback multiplies with whole maps, so a missing cell spoils its box; five boxes are free of them.
    known = np.isfinite(output)
    assert known[[5, 6, 7, 12]].all()
    assert error(output[known], case["expected"][known]) <= 1e-5


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_forward_and_gradients_equal_torchvision_in_float64(either, ratio):
    case = random_case(np.random.default_rng(52), ratio=ratio, dtype="float64", rois=30)
    mine, theirs = tensors_of(case, grad=True), tensors_of(case, grad=True)
    outputs = multi_level_roi_align(*mine, **settings_of(case)), torchvision_align(*theirs, **settings_of(case))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.backward(torch.from_numpy(case["grad_output"]))
    for a, b in zip(mine[0], theirs[0], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)


def test_adaptive_kernel_equals_reference(operators):
    case = random_case(np.random.default_rng(53), ratio=0, dtype="float64", rois=30)
    inputs = tensors_of(case)
    outputs = (f(*inputs, **settings_of(case)) for f in (multi_level_roi_align, multi_level_roi_align_reference))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


def test_hostile_boxes_are_zero_in_both(either):
    case = small_case()
    case["rois"][:3, 2] = [np.nan, np.inf, -3e38]
    output = multi_level_roi_align(*tensors_of(case), **settings_of(case))
    assert not output[:3].any()
    assert torch.isfinite(output).all()


def test_half_gradients_are_summed_in_float32(operators):
    case = small_case(rois=300)
    half = tensors_of(case, dtype=torch.float16, grad=True)
    single = [each.detach().float().requires_grad_() for each in half[0]]
    multi_level_roi_align(*half, **settings_of(case)).float().sum().backward()
    multi_level_roi_align(single, *half[1:], **settings_of(case)).sum().backward()
    for a, b in zip(half[0], single, strict=True):
        torch.testing.assert_close(a.grad, b.grad.half(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sizes", [{}, {"rois": 0}, {"levels": 1, "ratio": 0}], ids=str)
def test_opcheck(operators, sizes):
    case = small_case(**sizes)
    for grad in (False, True):
        torch.library.opcheck(multi_level_roi_align, tensors_of(case, grad=grad), settings_of(case))


class Extractor(torch.nn.Module):
    """Four-level features from one map, and boxes sampled from them."""

    def forward(self, image, rois, batch_indices):
        maps = [image, torch.nn.functional.avg_pool2d(image, 2)]
        settings = {"output_size": [3, 5], "spatial_scales": [0.25, 0.125], "sampling_ratio": 2}
        return multi_level_roi_align(maps, rois, batch_indices, **settings) * 2


def extractor_inputs(rois):
    case = small_case(rois=rois)
    return tuple(torch.from_numpy(case[name]) for name in ("feature0", "rois", "batch_indices"))


def test_export_keeps_the_op(operators):
    count = torch.export.Dim("count", min=0)
    program = torch.export.export(
        Extractor(), extractor_inputs(9), dynamic_shapes=({2: None, 3: None}, {0: count}, {0: count})
    )
    assert any(node.target == torch.ops.visdeploy.multi_level_roi_align.default for node in program.graph.nodes)
    more = extractor_inputs(17)
    torch.testing.assert_close(program.module()(*more), Extractor()(*more))


def test_compile_does_not_break_the_graph(either):
    gradients = []
    for module in (torch.compile(Extractor(), backend="aot_eager", fullgraph=True), Extractor()):
        image, rois, indices = extractor_inputs(9)
        module(image.requires_grad_(), rois, indices).sum().backward()
        gradients.append(image.grad)
    torch.testing.assert_close(*gradients)


BAD = {
    "non-contiguous": (0, lambda maps: [each.transpose(2, 3) for each in maps], r"features\[0\] is not contiguous"),
    "dtypes differ": (0, lambda maps: [maps[0], maps[1].double()], r"features\[1\].*seen: float64; expected: float32"),
    "rank": (0, lambda maps: [maps[0][0], maps[1]], r"features\[0\] has the wrong number of dim.*seen: 3 in"),
    "rois": (
        1,
        lambda rois: rois[:, :3].contiguous(),
        r"rois has the wrong shape \(seen: \[9, 3\]; expected: \[9, 4\]",
    ),
    "rois dtype": (1, lambda rois: rois.half(), r"rois.*wrong dtype \(seen: float16; expected: float32\)"),
    "index": (2, lambda index: index + 5, r"batch_indices, roi 0 \(seen: [56]; expected: 0 to 1\)"),
    "levels": (0, lambda maps: maps[:1], r"spatial_scales \(seen: 2 scales; expected: 1, one per feature\)"),
    "no levels": (0, lambda maps: [], r"number of features \(seen: 0; expected: 1 to 8\)"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(either, bad):
    index, spoil, message = BAD[bad]
    case = small_case()
    inputs = list(tensors_of(case))
    inputs[index] = spoil(inputs[index])
    with pytest.raises(OpError, match=f"multi_level_roi_align: .*{message}"):
        multi_level_roi_align(*inputs, **settings_of(case))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output_size": [7]}, r"output_size \(seen: \[7\]; expected: \(height, width\)\)"),
        ({"sampling_ratio": -2}, r"sampling_ratio \(seen: -2; expected: 0 to 1024\)"),
        ({"spatial_scales": [1.0, float("nan")]}, r"spatial_scales\[1\] \(seen: nan"),
        ({"finest_scale": 0.0}, "finest_scale"),
    ],
)
def test_bad_parameters_are_named(either, changed, message):
    case = small_case()
    with pytest.raises(OpError, match=f"multi_level_roi_align: parameter {message}"):
        multi_level_roi_align(*tensors_of(case), **{**settings_of(case), **changed})


def test_fallback_says_so_once(without_library):
    case = small_case()
    message = r"visdeploy::multi_level_roi_align runs its PyTorch reference on cpu: not built"
    with pytest.warns(RuntimeWarning, match=message):
        first = multi_level_roi_align(*tensors_of(case), **settings_of(case))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(first, multi_level_roi_align(*tensors_of(case), **settings_of(case)))


def test_kernel_is_never_passed_over(operators, monkeypatch):
    module = importlib.import_module("visdeploy_plugins.torch_ops.multi_level_roi_align")
    monkeypatch.setattr(
        module, "multi_level_roi_align_reference", lambda *_, **__: pytest.fail("the reference was dispatched to")
    )
    case = small_case()
    multi_level_roi_align(*tensors_of(case, grad=True), **settings_of(case)).sum().backward()


def test_scales_are_used_as_float32_by_kernel_and_reference(operators):
    case = small_case(dtype="float64")
    settings = {**settings_of(case), "spatial_scales": [0.1, 0.05], "finest_scale": 33.3}
    inputs = tensors_of(case)
    outputs = (f(*inputs, **settings) for f in (multi_level_roi_align, multi_level_roi_align_reference))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    assert len(features(case)) == 2
