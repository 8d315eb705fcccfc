"""Cases and calls that the tests of masked convolution share."""

from typing import Any

import numpy as np
import torch

from tests.visdeploy_plugins.emulation import Emulation
from tests.visdeploy_plugins.rounding import Sums
from tests.visdeploy_plugins.support import Arrays, view
from visdeploy_plugins import native
from visdeploy_plugins.torch_ops import masked_conv_reference

_CASES = ["all_masked_out", "batch3_per_sample", "corners", "depthwise", "dilation2_pad2"]
_CASES += ["groups2", "k1_random", "k3_nobias", "k3_random", "k3x5_pad1x2"]
_CASES += ["k5_pad2", "mask_values", "none_masked_out", "single_position", "stride2"]
_CASES += ["stride2_groups2_dilation2", "valid_pad0", "wide_64ch"]
GOLDENS = [f"maskedconv_{case}" for case in _CASES]
INPUTS = ("x", "mask", "weight", "bias")
GRADIENTS = ("grad_x", "grad_weight", "grad_bias")
PAIRS = ("stride", "padding", "dilation")


def params(case: Arrays) -> native.MaskedConvParams:
    pairs = (tuple(int(each) for each in case[name]) for name in PAIRS)
    return native.MaskedConvParams(*pairs, int(case["groups"][0]))


def keywords(case: Arrays) -> dict[str, Any]:
    """Return the parameters as the PyTorch operator takes them."""
    return {name: [int(each) for each in case[name]] for name in PAIRS} | {"groups": int(case["groups"][0])}


def _call(
    function: str, tensors: list[np.ndarray | None], case: Arrays, threads: int, emulation: Emulation | None
) -> None:
    if emulation is None:
        views = [None if each is None else view(each) for each in tensors]
        native.call(function, views, params=params(case), threads=threads)
    else:
        emulation(function, tensors, params=params(case))


def forward(case: Arrays, *, threads: int = 1, emulation: Emulation | None = None) -> np.ndarray:
    """Return the output of the CPU kernel, or of the emulated CUDA kernel."""
    output = np.empty(case["grad_y"].shape, case["x"].dtype)
    output.view(np.uint8).fill(0xFF)  # NaN in every floating-point type
    _call("vd_masked_conv_forward", [*(case.get(name) for name in INPUTS), output], case, threads, emulation)
    return output


def backward(case: Arrays, *, threads: int = 1, emulation: Emulation | None = None) -> Arrays:
    """Return the gradients for x, weight and bias."""
    grads = {"grad_x": np.full_like(case["x"], np.nan), "grad_weight": np.full_like(case["weight"], np.nan)}
    grads["grad_bias"] = np.full_like(case["weight"], np.nan, shape=len(case["weight"]))
    inputs = [case["x"], case["mask"], case["weight"], case["grad_y"]]
    _call("vd_masked_conv_backward", [*inputs, *(grads[each] for each in GRADIENTS)], case, threads, emulation)
    return grads


def reference(case: Arrays, dtype: torch.dtype = torch.float64, *, grad: bool = False) -> tuple[np.ndarray, Arrays]:
    """Return output and gradients of the plain PyTorch version in the given precision."""
    tensors = {name: torch.from_numpy(case[name]).to(dtype) for name in ("x", "weight", "bias") if name in case}
    for each in tensors.values():
        each.requires_grad_(grad)
    output = masked_conv_reference(mask=torch.from_numpy(case["mask"] > 0), **tensors, **keywords(case))
    if not grad:
        return output.numpy(), {}
    output.backward(torch.from_numpy(case["grad_y"]).to(dtype))
    return output.detach().numpy(), {f"grad_{name}": each.grad.numpy() for name, each in tensors.items()}


def exact_sums(case: Arrays) -> Sums:
    """Return the output in float64 and what bounds its rounding: a product and a sum per term, and the bias."""
    values = {name: case[name].astype(np.float64) for name in ("x", "weight", "bias") if name in case}
    terms = reference(case | {name: np.abs(each) for name, each in values.items()})[0]
    squares = reference(case | {name: np.square(each) for name, each in values.items()})[0]
    return Sums(reference(case)[0], terms, case["weight"][0].size + 1, squares)


def random_case(
    rng: np.random.Generator,
    *,
    batch: int = 1,
    channels: int = 4,
    outputs: int = 4,
    size: tuple[int, int] = (5, 6),
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    active: float = 0.4,
    bias: bool = True,
    dtype: Any = np.float32,
) -> Arrays:
    """Return random inputs; a share `active` of the mask is positive, the rest is zero or negative."""
    rows, columns = ((size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    case = {
        "x": rng.standard_normal((batch, channels, *size)),
        "mask": np.where(rng.random((batch, rows, columns)) < active, 1.0, -1.0) * rng.random((batch, rows, columns)),
        "weight": rng.standard_normal((outputs, channels // groups, *kernel)),
        "grad_y": rng.standard_normal((batch, outputs, rows, columns)),
    }
    case |= {"bias": rng.standard_normal(outputs)} if bias else {}
    case = {name: each.astype(dtype) for name, each in case.items()}
    pairs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": (groups,)}
    return case | {name: np.array(each) for name, each in pairs.items()}


# Every way in which groups, taps and sizes can meet vectors, tiles, cache blocks and CUDA segments.
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one of each": {"channels": 1, "outputs": 1, "size": (1, 1), "kernel": (1, 1), "padding": (0, 0), "active": 1.0},
    "odd sizes": {"batch": 2, "channels": 19, "outputs": 37, "size": (7, 11)},
    "groups": {"channels": 6, "outputs": 4, "groups": 2},
    "wide groups": {"channels": 10, "outputs": 38, "groups": 2, "size": (9, 4)},
    "depthwise": {"channels": 67, "outputs": 67, "groups": 67, "batch": 2},
    "depthwise with multiplier": {"channels": 3, "outputs": 6, "groups": 3},
    "wide": {"channels": 70, "outputs": 333, "size": (9, 8)},
    "deep": {"channels": 1100, "outputs": 9, "size": (4, 3)},
    "many positions": {"channels": 5, "outputs": 12, "size": (43, 51), "batch": 2, "active": 0.7},
    "more than one segment": {"channels": 1, "outputs": 9, "size": (130, 140), "kernel": (1, 1), "padding": (0, 0)},
    "many taps": {"channels": 2, "outputs": 3, "size": (8, 9), "kernel": (7, 5), "padding": (3, 2)},
    "strides and dilations": {"size": (6, 7), "stride": (2, 3), "padding": (0, 3), "dilation": (2, 1)},
    "padding beyond the input": {"size": (2, 1), "padding": (5, 4)},
    "everything active": {"channels": 17, "active": 1.0},
    "nothing active": {"batch": 2, "active": 0.0},
    "empty batch": {"batch": 0},
    "no bias": {"channels": 12, "bias": False},
}
