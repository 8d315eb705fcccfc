"""ONNX Runtime's CUDA provider takes our kernels, where onnxruntime-gpu is installed."""

import json
from pathlib import Path

import pytest

from tests.visdeploy_plugins.device_cases import OPS
from tests.visdeploy_plugins.device_checks import random_case
from tests.visdeploy_plugins.support import error
from visdeploy_plugins import onnxruntime_library

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
