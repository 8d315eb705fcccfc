"""Fused multi-scale deformable attention, including softmax and locations, compared with the unfused graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor

from op_suite import attention
from op_suite.attention import HEADS, POINTS
from op_suite.case import Case, Tensors, node
from visdeploy_plugins.torch_ops import ms_deform_attn, ms_deform_attn_fused, ms_deform_attn_fused_reference

NAMES = (*attention.NAMES[:3], "reference_points", "sampling_offsets", "attention_logits")


def cases(*, small: bool) -> Iterator[Case]:
    """Yield one case with offsets of a few pixels around the centre of each query."""
    shapes = torch.tensor(attention.SMALL_LEVELS if small else attention.LEVELS)
    plain = attention.encoder_inputs(shapes)
    tokens, levels = plain["value"].shape[1], len(shapes)
    generator = torch.Generator().manual_seed(0)
    inputs = {name: plain[name] for name in NAMES[:3]} | {
        "reference_points": attention.reference_points(shapes)[None, :, None].repeat(1, 1, levels, 1),
        "sampling_offsets": attention.pixel_offsets(tokens, levels, generator),
        "attention_logits": torch.randn((1, tokens, HEADS, levels, POINTS), generator=generator),
    }
    yield Case(
        op="ms_deform_attn_fused",
        setting="offsets of a few pixels",
        inputs=inputs,
        nodes=[node("MSDeformAttnFused", list(NAMES))],
        ours=lambda t: ms_deform_attn_fused(*(t[name] for name in NAMES)),
        eager={
            "PyTorch grid_sample": lambda t: ms_deform_attn_fused_reference(*(t[name] for name in NAMES)),
            "our PyTorch op, unfused": _unfused,
        },
        # in addition to the sampling: about 4 operations per term of the softmax and 2 per coordinate
        flops=attention.sampling_flops(inputs["attention_logits"], plain["value"])
        + 8 * inputs["attention_logits"].numel(),
        baseline_nodes={"ORT kernel, unfused graph": _unfused_nodes(levels, shapes)},
        constants=attention.GEOMETRY,
    )


def _unfused(t: Tensors) -> Tensor:
    logits, offsets = t["attention_logits"], t["sampling_offsets"]
    steps = t["spatial_shapes"].flip(1)[None, None, None, :, None].to(offsets.dtype)
    locations = t["reference_points"][:, :, None, :, None] + offsets / steps
    weights = logits.flatten(3).softmax(-1).view_as(logits)
    output: Tensor = ms_deform_attn(*(t[name] for name in NAMES[:3]), locations, weights)
    return output


def _unfused_nodes(levels: int, shapes: Tensor) -> list[NodeProto]:
    """Return the nodes that an exporter writes for `_unfused`, with our kernel for the attention."""

    def step(op_type: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        made: NodeProto = node(op_type, inputs, ours=False, output=output, **attributes)
        return made

    def constant(name: str, value: np.ndarray) -> NodeProto:
        return step("Constant", [], name, value=numpy_helper.from_array(value))

    inverse = 1 / shapes.flip(1).numpy().astype(np.float32)[None, None, None, :, None]
    return [
        constant("inverse_steps", inverse),
        constant("axes", np.array([2, 4])),
        constant("joined", np.array([0, 0, HEADS, levels * POINTS])),
        constant("split", np.array([0, 0, HEADS, levels, POINTS])),
        step("Mul", ["sampling_offsets", "inverse_steps"], "relative"),
        step("Unsqueeze", ["reference_points", "axes"], "centres"),
        step("Add", ["centres", "relative"], "sampling_locations"),
        step("Reshape", ["attention_logits", "joined"], "logits"),
        step("Softmax", ["logits"], "shares", axis=-1),
        step("Reshape", ["shares", "split"], "attention_weights"),
        node("MSDeformAttn", list(attention.NAMES)),
    ]
