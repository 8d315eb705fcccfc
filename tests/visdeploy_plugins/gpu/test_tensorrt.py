"""TensorRT engines with our plugins run and are right, where a TensorRT with builder and parser is installed."""

import importlib
import importlib.util

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.device_cases import OPS
from tests.visdeploy_plugins.device_checks import random_case, worst
from visdeploy_plugins.tensorrt import PLUGINS, load

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def tensorrt(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return importlib.import_module(request.param)


def build(tensorrt, model, feed):
    """Return the engine for exactly the shapes of the feed, its nodes run by our plugins."""
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    load(tensorrt.get_plugin_registry())
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    parser.set_flag(tensorrt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
    parsed = parser.parse(model.SerializeToString())
    assert parsed, "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, array in feed.items():
        profile.set_shape(name, array.shape, array.shape, array.shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, "no engine was built; the log says why"
    return tensorrt.Runtime(logger).deserialize_cuda_engine(plan)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", OPS)
def test_engine_equals_the_cpu_kernel(tensorrt, device, name, dtype):
    from tests.visdeploy_plugins.onnx_models import MODELS

    if device.type == "cuda" and tensorrt.__name__ == "tensorrt_rtx" and torch.cuda.get_device_capability() == (9, 0):
        pytest.skip("TensorRT for RTX builds no engines for compute capability 9.0")
    op = OPS[name]
    case = random_case(op, 92, dtype=dtype)
    tensors = op.tensors(case, getattr(torch, dtype), "cpu")
    if "reference_points" in case:  # the plugin takes coordinates in float32 alone
        case["reference_points"] = case["reference_points"].astype(np.float32)
        tensors["reference_points"] = torch.from_numpy(case["reference_points"])
    model, feed = MODELS[name](case)
    if model.graph.node[0].op_type not in PLUGINS:
        pytest.skip(f"there is no TensorRT plugin for {model.graph.node[0].op_type}")
    expected = op.run(tensors, case)
    engine = build(tensorrt, model, feed)
    context = engine.create_execution_context()
    inputs = {key: torch.from_numpy(np.ascontiguousarray(array)).to(device) for key, array in feed.items()}
    output = torch.full(expected.shape, torch.nan, dtype=expected.dtype, device=device)
    for key, tensor in inputs.items():
        context.set_input_shape(key, tuple(tensor.shape))
        context.set_tensor_address(key, tensor.data_ptr())
    context.set_tensor_address(model.graph.output[0].name, output.data_ptr())
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    assert context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    assert worst(output, expected) <= (2e-5 if dtype == "float32" else 2e-3)
