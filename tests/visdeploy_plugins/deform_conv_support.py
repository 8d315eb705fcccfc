"""Cases and calls that the tests of deformable convolution share."""

from typing import Any

import numpy as np
import torch

from tests.visdeploy_plugins.emulation import Emulation
from tests.visdeploy_plugins.rounding import Sums
from tests.visdeploy_plugins.support import Arrays, view
from visdeploy_plugins import native
from visdeploy_plugins.torch_ops import deform_conv_reference

DCN = ["dcn_v1_asym", "dcn_v1_border", "dcn_v1_defvis", "dcn_v1_empty", "dcn_v1_kernel1", "dcn_v1_outside"]
DCN += ["dcn_v1_stride2_dil2_g2_dg2", "dcn_v2_basic", "dcn_v2_border", "dcn_v2_empty", "dcn_v2_g4_dg4"]
DCN += ["dcn_v2_raw_mask", "dcn_v2_stride2_pad2_dil2_g2_dg3", "dcn_v2_zero_offset"]
TENSORS = ("input", "offset", "weight", "mask", "bias")
GRADIENTS = ("grad_input", "grad_offset", "grad_weight", "grad_mask", "grad_bias")


def params(case: Arrays) -> native.DeformConvParams:
    """Return the parameters; two paddings are (y, x), four are (top, left, bottom, right)."""
    padding = [int(each) for each in case["padding"]]
    return native.DeformConvParams(
        tuple(int(each) for each in case["stride"]),
        tuple(padding * (4 // len(padding))),
        tuple(int(each) for each in case["dilation"]),
        int(case["groups"]),
        int(case["deform_groups"]),
    )


Maybe = np.ndarray | None


def _call(function: str, tensors: list[Maybe], case: Arrays, threads: int, emulation: Emulation | None) -> None:
    if emulation is None:
        views = [None if each is None else view(each) for each in tensors]
        native.call(function, views, params=params(case), threads=threads)
    else:
        emulation(function, tensors, params=params(case))


def forward(case: Arrays, *, threads: int = 1, emulation: Emulation | None = None) -> np.ndarray:
    """Return the output of the CPU kernel, or of the emulated CUDA kernel."""
    output = np.empty(case["grad_output"].shape, case["input"].dtype)
    output.view(np.uint8).fill(0xFF)  # NaN in every floating-point type
    inputs = [case["input"], case["offset"], case["weight"], case.get("mask"), case.get("bias")]
    _call("vd_deform_conv_forward", [*inputs, output], case, threads, emulation)
    return output


def backward(case: Arrays, *, threads: int = 1, emulation: Emulation | None = None) -> Arrays:
    """Return the gradients of everything that the case has."""
    names = [each for each in GRADIENTS if each.removeprefix("grad_") in case]
    grads = {each: np.full_like(case[each.removeprefix("grad_")], np.nan) for each in names}
    inputs = [case["input"], case["offset"], case["weight"], case.get("mask"), case["grad_output"]]
    _call("vd_deform_conv_backward", [*inputs, *(grads.get(each) for each in GRADIENTS)], case, threads, emulation)
    return grads


def reference(case: Arrays, dtype: torch.dtype = torch.float64, *, grad: bool = False) -> tuple[np.ndarray, Arrays]:
    """Return output and gradients of the plain PyTorch version."""
    tensors = {name: torch.from_numpy(case[name]).to(dtype) for name in TENSORS if name in case}
    for each in tensors.values():
        each.requires_grad_(grad)
    output = deform_conv_reference(**tensors, **keywords(case))
    if not grad:
        return output.numpy(), {}
    output.backward(torch.from_numpy(case["grad_output"]).to(dtype))
    return output.detach().numpy(), {f"grad_{name}": each.grad.numpy() for name, each in tensors.items()}


def exact_sums(case: Arrays) -> Sums:
    """Return the output in float64 and what bounds its rounding.

    A term is a neighbour's value times its two distances, the mask and the weight: five roundings, then one for each
    of the four neighbours and of the taps that it is added to, and the bias. A coordinate within the map is rounded by
    at most u times the map's size; from pixel to pixel a value changes by at most twice the largest one.
    """
    values = {name: case[name].astype(np.float64) for name in TENSORS if name in case and name != "offset"}
    terms = reference(case | {name: np.abs(each) for name, each in values.items()})[0]
    squares = reference(case | {name: np.square(each) for name, each in values.items()})[0]
    slope = 2 * np.abs(values["input"]).max(initial=0) * values.get("mask", np.ones(1)).max(initial=0)
    weights = np.abs(values["weight"]).sum((1, 2, 3))[:, None, None]
    moved = (sum(case["input"].shape[2:]) + 2) * slope * weights
    return Sums(reference(case)[0], terms, case["weight"][0].size + 9, squares, moved)


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
    """Return random inputs; offsets have a standard deviation of `spread` pixels."""
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


def keywords(case: Arrays) -> dict[str, Any]:
    """Return the parameters as the PyTorch operator takes them."""
    lists = {name: [int(each) for each in case[name]] for name in ("stride", "padding", "dilation")}
    return lists | {"groups": int(case["groups"]), "offset_groups": int(case["deform_groups"])}


# Every way in which groups, offset groups, taps and sizes can meet vectors, tiles and cache blocks.
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one of each": {"channels": 1, "outputs": 1, "size": (1, 1), "kernel": (1, 1), "padding": (0, 0, 0, 0)},
    "odd sizes": {"batch": 2, "channels": 19, "outputs": 37, "size": (7, 11)},
    "groups cross offset groups": {"channels": 6, "outputs": 4, "groups": 2, "offset_groups": 3},
    "depthwise": {"channels": 8, "outputs": 16, "groups": 8, "offset_groups": 2},
    "wide": {"channels": 70, "outputs": 133, "size": (9, 8), "offset_groups": 2},
    "deep": {"channels": 600, "outputs": 3, "size": (4, 3), "offset_groups": 4},
    "many positions": {"channels": 5, "outputs": 6, "size": (23, 31), "groups": 1, "batch": 2},
    "many taps": {"channels": 2, "outputs": 3, "size": (8, 9), "kernel": (7, 5), "padding": (3, 2, 3, 2)},
    "all pads differ": {"size": (6, 7), "stride": (2, 3), "padding": (0, 3, 2, 1), "dilation": (2, 1)},
    "v1 without bias": {"channels": 12, "mask": False, "bias": False},
}
