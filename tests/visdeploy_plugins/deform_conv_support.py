"""Cases and calls that the tests of deformable convolution share."""

import ctypes
from typing import Any

import numpy as np

from tests.visdeploy_plugins.support import Arrays, view
from visdeploy_plugins import native

DCN = ["dcn_v1_asym", "dcn_v1_border", "dcn_v1_defvis", "dcn_v1_empty", "dcn_v1_kernel1", "dcn_v1_outside"]
DCN += ["dcn_v1_stride2_dil2_g2_dg2", "dcn_v2_basic", "dcn_v2_border", "dcn_v2_empty", "dcn_v2_g4_dg4"]
DCN += ["dcn_v2_raw_mask", "dcn_v2_stride2_pad2_dil2_g2_dg3", "dcn_v2_zero_offset"]
GRADIENTS = ("grad_input", "grad_offset", "grad_weight", "grad_mask", "grad_bias")


def params(case: Arrays) -> native.DeformConvParams:
    """Two paddings stand for (y, x), four for (top, left, bottom, right)."""
    padding = [int(each) for each in case["padding"]]
    return native.DeformConvParams(
        tuple(int(each) for each in case["stride"]),
        tuple(padding * (4 // len(padding))),
        tuple(int(each) for each in case["dilation"]),
        int(case["groups"]),
        int(case["deform_groups"]),
    )


def _views(*arrays: np.ndarray | None) -> list[native.TensorView | None]:
    return [None if each is None else view(each) for each in arrays]


def _call(function: str, tensors: list[Any], case: Arrays, threads: int, emulation: ctypes.CDLL | None) -> None:
    if emulation is None:
        native.call(function, tensors, params=params(case), threads=threads)
    else:
        native.call(function, tensors, params=params(case), stream=0, library=emulation)


def forward(case: Arrays, *, threads: int = 1, emulation: ctypes.CDLL | None = None) -> np.ndarray:
    """The output of the CPU kernel, or of the emulated CUDA kernel."""
    output = np.empty(case["grad_output"].shape, case["input"].dtype)
    output.view(np.uint8).fill(0xFF)  # NaN in every floating-point type
    inputs = [case["input"], case["offset"], case["weight"], case.get("mask"), case.get("bias")]
    _call("vd_deform_conv_forward", _views(*inputs, output), case, threads, emulation)
    return output


def backward(case: Arrays, *, threads: int = 1, emulation: ctypes.CDLL | None = None) -> Arrays:
    """The gradients of everything that the case has."""
    names = [each for each in GRADIENTS if each.removeprefix("grad_") in case]
    grads = {each: np.full_like(case[each.removeprefix("grad_")], np.nan) for each in names}
    inputs = [case["input"], case["offset"], case["weight"], case.get("mask"), case["grad_output"]]
    tensors = _views(*inputs, *(grads.get(each) for each in GRADIENTS))
    _call("vd_deform_conv_backward", tensors, case, threads, emulation)
    return grads


def random_case(
    rng: np.random.Generator,
    *,
    batch: int = 1,
    channels: int = 4,
    outputs: int = 4,
    size: tuple[int, int] = (5, 6),
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    offset_groups: int = 1,
    mask: bool = True,
    bias: bool = True,
    spread: float = 2.0,
    dtype: Any = np.float32,
) -> Arrays:
    """Random inputs; offsets have a standard deviation of `spread` pixels."""
    out = tuple(
        (size[i] + padding[i] + padding[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )
    taps = kernel[0] * kernel[1]
    case = {
        "input": rng.standard_normal((batch, channels, *size)),
        "offset": spread * rng.standard_normal((batch, 2 * offset_groups * taps, *out)),
        "weight": rng.standard_normal((outputs, channels // groups, *kernel)),
        "grad_output": rng.standard_normal((batch, outputs, *out)),
    }
    case |= {"mask": rng.random((batch, offset_groups * taps, *out))} if mask else {}
    case |= {"bias": rng.standard_normal(outputs)} if bias else {}
    case = {name: each.astype(dtype) for name, each in case.items()}
    numbers = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return case | {name: np.array(each) for name, each in (numbers | {"deform_groups": offset_groups}).items()}
