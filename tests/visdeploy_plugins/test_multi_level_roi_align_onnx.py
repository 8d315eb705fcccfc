"""The ONNX op: one file runs on the stock runtime and with our library, and says what is wrong with bad tensors."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from tests.visdeploy_plugins.roi_align_support import features, golden_cases, random_case
from tests.visdeploy_plugins.support import error
from visdeploy_plugins import OpError
from visdeploy_plugins.onnx_functions import add_function_bodies, multi_level_roi_align_function, translation_table
from visdeploy_plugins.torch_ops import multi_level_roi_align


def model_of(*cases, opset=20):
    """One node per case, each with its own symbols and inputs `rois0`, ..."""
    nodes, inputs, outputs = [], [], []
    for i, case in enumerate(cases):
        feed = feed_of(case, i)
        symbols = {f"rois{i}": [f"R{i}", 4], f"batch_indices{i}": [f"R{i}"]}
        for name, array in feed.items():
            shape = symbols.get(name, [f"N{i}", f"C{i}", f"H{name}", f"W{name}"])
            inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
        kind = helper.np_dtype_to_tensor_dtype(features(case)[0].dtype)
        outputs.append(helper.make_tensor_value_info(f"output{i}", kind, ["R", "C", *map(int, case["output_size"])]))
        attributes = {
            "output_height": int(case["output_size"][0]),
            "output_width": int(case["output_size"][1]),
            "sampling_ratio": int(case["ratio"]),
            "spatial_scales": [float(each) for each in case["scales"]],
            "finest_scale": float(case["finest"]),
        }
        common = {"name": f"align{i}", "domain": "visdeploy"}
        nodes.append(helper.make_node("MultiLevelRoiAlign", list(feed), [f"output{i}"], **common, **attributes))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("visdeploy", 1)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=opsets, ir_version=10)


def feed_of(case, i=0):
    maps = {f"feature{level}_{i}": each for level, each in enumerate(features(case))}
    return {f"rois{i}": case["rois"], f"batch_indices{i}": case["batch_indices"], **maps}


def run(model, *cases, library=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if library:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {k: v for i, case in enumerate(cases) for k, v in feed_of(case, i).items()})


def on_both(case, library, opset=20):
    model = add_function_bodies(model_of(case, opset=opset))
    return run(model, case)[0], run(model, case, library=library)[0]


@pytest.mark.parametrize("bins", [7, 14])
def test_golden_on_stock_runtime_and_with_library(shared, custom_ops, bins):
    case = golden_cases(shared)[bins]
    for output in on_both(case, custom_ops):
        known = np.isfinite(output)
        # The standard operator multiplies also cells of weight 0, so a missing one spoils more bins.
        assert known.mean() > 0.37
        assert error(output[known], case["expected"][known]) <= 1e-5


@pytest.mark.parametrize("opset", [16, 18, 20, 21])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_body_equals_kernel(custom_ops, opset, ratio):
    case = random_case(np.random.default_rng(61), rois=60, ratio=ratio)
    stock, ours = on_both(case, custom_ops, opset)
    onnx.checker.check_model(add_function_bodies(model_of(case, opset=opset)))
    assert error(ours, stock) <= 1e-5
    assert np.abs(stock).max() > 0.5


@pytest.mark.parametrize("levels", [1, 2, 3, 8])
def test_pyramids_of_any_height(custom_ops, levels):
    case = random_case(np.random.default_rng(62), levels=levels, rois=30, finest=8.0)
    stock, ours = on_both(case, custom_ops)
    assert error(ours, stock) <= 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 2e-3), ("float64", 1e-12)])
def test_other_dtypes_on_both(custom_ops, dtype, limit):
    case = random_case(np.random.default_rng(63), dtype=dtype)
    stock, ours = on_both(case, custom_ops)
    assert ours.dtype == stock.dtype == np.dtype(dtype)
    assert error(ours, stock) <= limit


@pytest.mark.parametrize("sizes", [{"rois": 0}, {"rois": 1}, {"image": (1, 1)}], ids=str)
def test_smallest_cases_on_both(custom_ops, sizes):
    case = random_case(np.random.default_rng(64), **sizes)
    stock, ours = on_both(case, custom_ops)
    assert stock.shape == case["grad_output"].shape
    assert error(ours, stock) <= 1e-5


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e13, 3e38])
def test_hostile_boxes_on_both(custom_ops, hostile, ratio):
    case = random_case(np.random.default_rng(65), rois=9, ratio=ratio)
    case["rois"][2:5] = [[hostile, 0, 9, 9], [0, 0, hostile, 9], [-hostile, -hostile, hostile, hostile]]
    stock, ours = on_both(case, custom_ops)
    assert not stock[2:5].any()
    assert error(ours, stock) <= 1e-5


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 5], [9, 40, 9, 80], [60, 50, 10, 12], [60, 12, 10, 50], [-1e9, -1e9, 1e9, 1e9]]
)
def test_degenerate_boxes_on_both(custom_ops, box):
    case = random_case(np.random.default_rng(66), rois=1)
    case["rois"][:] = box
    stock, ours = on_both(case, custom_ops)
    assert error(ours, stock) <= 1e-5


def test_bodies_of_one_model(custom_ops):
    rng = np.random.default_rng(67)
    cases = [random_case(rng, levels=levels, ratio=ratio) for levels, ratio in ((3, 2), (1, 2), (3, 0), (3, 1))]
    model = add_function_bodies(model_of(*cases))
    assert [each.overload for each in model.functions] == ["", "levels_1", "levels_3_adaptive"]
    assert [node.overload for node in model.graph.node] == ["", "levels_1", "levels_3_adaptive", ""]
    for stock, ours in zip(run(model, *cases), run(model, *cases, library=custom_ops), strict=True):
        assert error(ours, stock) <= 1e-5


def test_shapes_are_inferred_from_attributes(custom_ops):
    case = random_case(np.random.default_rng(68), output=(3, 5))
    model = model_of(case)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("output0", TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(custom_ops)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["R0", "C0", 3, 5]


def test_threads_change_nothing(custom_ops):
    case = random_case(np.random.default_rng(69), rois=300, channels=40, image=(120, 200))
    outputs = []
    for threads in (1, 2, 3):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.register_custom_ops_library(custom_ops)
        model = model_of(case).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, feed_of(case))[0])
    assert all(np.array_equal(each, outputs[0]) for each in outputs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda case: case.update(batch_indices=case["batch_indices"] + 7), r"batch_indices, roi 0 \(seen: [78]; "),
        (lambda case: case.update(batch_indices=case["batch_indices"][1:]), r"batch_indices has the wrong shape"),
        (lambda case: case.update(feature1=case["feature1"][:1]), r"features\[1\] has the wrong shape"),
        (lambda case: case.update(feature2=case["feature2"][:, :, :0]), r"features\[2\] \(seen: \[2, 3, 0, 10\]"),
    ],
)
def test_kernel_names_bad_tensors(custom_ops, spoil, message):
    case = random_case(np.random.default_rng(70))
    model = model_of(case)
    spoil(case)
    with pytest.raises(Exception, match=f"multi_level_roi_align: tensor {message}"):
        run(model, case, library=custom_ops)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("spatial_scales", [0.25], r"spatial_scales \(seen: 1 scales; expected: 4, one per feature\)"),
        ("sampling_ratio", -1, r"sampling_ratio \(seen: -1"),
        ("output_height", 0, r"output_height \(seen: 0"),
    ],
)
def test_kernel_names_bad_attributes(custom_ops, name, value, message):
    case = random_case(np.random.default_rng(71))
    model = model_of(case)
    attribute = next(each for each in model.graph.node[0].attribute if each.name == name)
    attribute.CopyFrom(helper.make_attribute(name, value))
    with pytest.raises(Exception, match=f"multi_level_roi_align: parameter {message}"):
        run(model, case, library=custom_ops)


def test_node_without_its_attributes_is_named(custom_ops):
    case = random_case(np.random.default_rng(72))
    model = model_of(case)
    del model.graph.node[0].attribute[:]
    with pytest.raises(OpError, match=r"node align0 \(MultiLevelRoiAlign\) \(seen: no attribute sampling_ratio"):
        add_function_bodies(model)
    with pytest.raises(Exception, match="output_height"):
        run(model, case, library=custom_ops)


@pytest.mark.parametrize(("levels", "opset"), [(0, 20), (9, 20), (2, 15)])
def test_impossible_bodies_are_refused(levels, opset):
    with pytest.raises(OpError, match="no function body"):
        multi_level_roi_align_function(levels, opset=opset)


class Extractor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, image, rois, batch_indices):
        fine = self.convolution(image)
        maps = [fine, torch.nn.functional.avg_pool2d(fine, 2)]
        settings = {"output_size": [3, 3], "spatial_scales": [0.5, 0.25], "finest_scale": 16.0}
        return multi_level_roi_align(maps, rois, batch_indices, **settings)


def test_export_from_torch_runs_everywhere_at_other_sizes(custom_ops):
    module = Extractor().eval()

    def inputs(batch, rois, height, width):
        generator = torch.Generator().manual_seed(rois)
        corners = torch.rand(rois, 4, generator=generator) * 60 - 10
        image = torch.rand(batch, 3, height, width, generator=generator)
        return image, corners, torch.randint(batch, (rois,), generator=generator)

    program = torch.onnx.export(
        module,
        inputs(2, 7, 32, 48),
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"}, {0: "rois"}, {0: "rois"}),
        custom_translation_table=translation_table(),
        input_names=["image", "rois", "batch_indices"],
        verbose=False,
    )
    model = add_function_bodies(program.model_proto)
    assert [node.op_type for node in model.graph.node].count("MultiLevelRoiAlign") == 1
    other = inputs(3, 11, 40, 44)
    expected = module(*other).detach().numpy()
    feed = dict(zip(("image", "rois", "batch_indices"), (each.numpy() for each in other), strict=True))
    for library in (None, custom_ops):
        options = onnxruntime.SessionOptions()
        if library:
            options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert error(session.run(None, feed)[0], expected) <= 1e-5
