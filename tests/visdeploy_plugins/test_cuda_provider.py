"""ONNX Runtime's CUDA kernels where there is no CUDA: they load, stand aside, and are right when run on the host."""

import ctypes.util

import numpy as np
import onnxruntime
import pytest

from tests.visdeploy_plugins.device_cases import OPS
from tests.visdeploy_plugins.device_checks import random_case
from tests.visdeploy_plugins.onnx_models import MODELS
from tests.visdeploy_plugins.support import error
from visdeploy_plugins import native

BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def session_of(model, library, providers=("CPUExecutionProvider",)):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=list(providers))


@pytest.mark.parametrize("name", OPS)
def test_cpu_kernel_is_taken_where_the_cuda_provider_does_not_start(operators, custom_ops, name):
    library, _ = native.load()
    if not library.vd_cuda_architectures():
        pytest.skip("built without nvcc: there are no CUDA kernels to stand aside")
    if ctypes.util.find_library("cuda"):
        pytest.skip("there is a CUDA driver: the GPU tests show that the CUDA kernel is taken")
    model, feed = MODELS[name](random_case(OPS[name], 41))
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = session_of(model, custom_ops, BOTH)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert np.array_equal(session.run(None, feed)[0], session_of(model, custom_ops).run(None, feed)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", OPS)
def test_cuda_kernel_on_the_host_equals_the_cpu_kernel(custom_ops, emulated_custom_ops, name, dtype):
    limit = {"float32": 1e-5, "float64": 1e-13, "float16": 2e-3}[dtype]
    for sizes in OPS[name].shapes.values():
        model, feed = MODELS[name](random_case(OPS[name], 42, dtype=dtype, **sizes))
        ours, emulated = (session_of(model, each).run(None, feed)[0] for each in (custom_ops, emulated_custom_ops))
        assert error(emulated, ours) <= limit, sizes


def test_bad_tensors_are_named_on_the_host(emulated_custom_ops):
    model, feed = MODELS["ms_deform_attn"](random_case(OPS["ms_deform_attn"], 43, levels=[(3, 5), (2, 2)]))
    feed["attention_weights0"] = feed["attention_weights0"][:, :1]
    with pytest.raises(Exception, match=r"ms_deform_attn: tensor attention_weights has the wrong shape"):
        session_of(model, emulated_custom_ops).run(None, feed)
