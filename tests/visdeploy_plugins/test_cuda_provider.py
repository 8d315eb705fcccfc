"""ONNX Runtime's CUDA kernels where there is no CUDA: they load, stand aside, and are right when run on the host."""

import ctypes.util

import numpy as np
import onnxruntime
import pytest

from tests.visdeploy_plugins.support import INPUTS, MSDA, error, golden, random_case, tolerances
from tests.visdeploy_plugins.test_ms_deform_attn_onnx import model_of, run
from visdeploy_plugins import native

BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_cpu_kernel_is_taken_where_the_cuda_provider_does_not_start(operators, custom_ops):
    library, _ = native.load()
    if not library.vd_cuda_architectures():
        pytest.skip("built without nvcc: there are no CUDA kernels to stand aside")
    if ctypes.util.find_library("cuda"):
        pytest.skip("there is a CUDA driver: the GPU tests show that the CUDA kernel is taken")
    case = random_case(np.random.default_rng(41), [(3, 5), (2, 2)], channels=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(custom_ops)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = onnxruntime.InferenceSession(model_of(2).SerializeToString(), options, providers=BOTH)
    assert session.get_providers() == ["CPUExecutionProvider"]
    feed = {f"{name}0": case[name] for name in INPUTS}
    assert np.array_equal(session.run(None, feed)[0], run(model_of(2), case, library=custom_ops)[0])


@pytest.mark.parametrize("name", MSDA)
def test_cuda_kernel_on_the_host_equals_golden(shared, emulated_custom_ops, name):
    case = golden(shared, name)
    output = run(model_of(len(case["spatial_shapes"])), case, library=emulated_custom_ops)[0]
    assert error(output, case["output"]) <= tolerances(shared)["output"]


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes_on_the_host(custom_ops, emulated_custom_ops, dtype):
    case = random_case(np.random.default_rng(42), [(3, 5), (2, 2)], channels=16, dtype=dtype)
    model = model_of(2, dtype={"float64": 11, "float16": 10}[dtype])
    both = [run(model, case, library=library)[0] for library in (custom_ops, emulated_custom_ops)]
    assert error(*both) <= {"float64": 1e-14, "float16": 1e-3}[dtype]


def test_bad_tensors_are_named_on_the_host(emulated_custom_ops):
    case = random_case(np.random.default_rng(43), [(3, 5), (2, 2)])
    case["attention_weights"] = case["attention_weights"][:, :1]
    with pytest.raises(Exception, match=r"ms_deform_attn: tensor attention_weights has the wrong shape"):
        run(model_of(2), case, library=emulated_custom_ops)
