"""ONNX Runtime's CUDA provider takes our kernels, where onnxruntime-gpu is installed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.visdeploy_plugins.device_cases import OPS
from tests.visdeploy_plugins.device_checks import random_case
from tests.visdeploy_plugins.support import error
from visdeploy_plugins import onnxruntime_library, why_no_cuda_kernels

pytestmark = pytest.mark.gpu
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def onnxruntime():
    module = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if CUDA not in module.get_available_providers():
        pytest.skip(f"onnxruntime {module.__version__} has no CUDA provider: install onnxruntime-gpu")
    if hasattr(module, "preload_dlls"):
        module.preload_dlls()
    return module


def test_the_question_whether_kernels_run_is_answered(device):
    before = torch.cuda.current_device()
    assert why_no_cuda_kernels(device.index) == ""
    assert "no use of CUDA device 99" in why_no_cuda_kernels(99)
    assert torch.cuda.current_device() == before


PRODUCTS = """
<ir_version: 10, opset_import: ["" : 20]>
products (float[1, 64, 40, w] x, float[96, 64, 3, 3] weight)
  => (float[1, 96, 38, v] convolved, float[1, 64, 40, 40] product)
{
  convolved = Conv (x, weight)
  turned = Transpose <perm = [0, 1, 3, 2]> (x)
  product = MatMul (x, turned)
}
"""


@pytest.mark.parametrize("width", [40, 72])
@pytest.mark.parametrize("search", ["HEURISTIC", "EXHAUSTIVE"])
def test_float32_is_not_rounded_to_tf32(onnxruntime, search, width):
    """With `use_tf32=0`, errors are those of float32, below 1e-6 here; with TF32 they would be above 1e-4."""
    import onnx.parser

    rng = np.random.default_rng(93)
    feed = {"x": rng.standard_normal((1, 64, 40, width)), "weight": rng.standard_normal((96, 64, 3, 3))}
    feed = {name: array.astype(np.float32) for name, array in feed.items()}
    options = {"use_tf32": "0", "cudnn_conv_algo_search": search}
    model = onnx.parser.parse_model(PRODUCTS).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=[(CUDA, options)])
    assert session.get_provider_options()[CUDA]["use_tf32"] == "0"
    convolved, product = session.run(None, feed)
    x, weight = (torch.from_numpy(array).double() for array in feed.values())
    assert error(convolved, torch.nn.functional.conv2d(x, weight).numpy()) <= 1e-5
    assert error(product, (x @ x.mT).numpy()) <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("name", OPS)
def test_cuda_kernel_is_taken_and_right(onnxruntime, name, dtype, tmp_path):
    from tests.visdeploy_plugins.onnx_models import MODELS

    limit = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-3}[dtype]
    model, feed = MODELS[name](random_case(OPS[name], 91, dtype=dtype))
    outputs = {}
    for provider in (CUDA, "CPUExecutionProvider"):
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / provider)
        options.register_custom_ops_library(str(onnxruntime_library()))
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
        assert session.get_providers()[0] == provider
        outputs[provider] = session.run(None, feed)[0]
        events = json.loads(Path(session.end_profiling()).read_text())
        ran = [each["args"] for each in events if each.get("args", {}).get("op_name") == model.graph.node[0].op_type]
        assert {each["provider"] for each in ran} == {provider}
    assert error(outputs[CUDA], outputs["CPUExecutionProvider"]) <= limit
