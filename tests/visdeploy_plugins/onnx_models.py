"""Each op as an ONNX file with one node, and what it is fed: what tests of several ops and engines run."""

from collections.abc import Callable

import numpy as np
import onnx

from tests.visdeploy_plugins import test_deform_conv_onnx as deform_conv
from tests.visdeploy_plugins import test_masked_conv_onnx as masked_conv
from tests.visdeploy_plugins import test_ms_deform_attn_fused_onnx as fused_attention
from tests.visdeploy_plugins import test_ms_deform_attn_onnx as attention
from tests.visdeploy_plugins import test_multi_level_roi_align_onnx as roi_align
from tests.visdeploy_plugins.ms_deform_attn_fused_support import FUSED_INPUTS
from tests.visdeploy_plugins.support import INPUTS, Arrays

Feed = dict[str, np.ndarray]


def _attention(case: Arrays) -> tuple[onnx.ModelProto, Feed]:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(case["value"].dtype)
    feed = {f"{name}0": case[name] for name in INPUTS}
    return attention.model_of(len(case["spatial_shapes"]), dtype=dtype), feed


def _fused_attention(case: Arrays) -> tuple[onnx.ModelProto, Feed]:
    return fused_attention.model_of(case), {name: case[name] for name in FUSED_INPUTS}


def _deform_conv(case: Arrays) -> tuple[onnx.ModelProto, Feed]:
    return deform_conv.model_of(case, constant_weight=False, **deform_conv.attributes_of(case)), deform_conv.feed_of(
        case
    )


def _masked_conv(case: Arrays) -> tuple[onnx.ModelProto, Feed]:
    whole = masked_conv.with_bias(case)
    return masked_conv.model_of(whole), {name: whole[name] for name in masked_conv.INPUTS}


def _roi_align(case: Arrays) -> tuple[onnx.ModelProto, Feed]:
    return roi_align.model_of(case), roi_align.feed_of(case)


MODELS: dict[str, Callable[[Arrays], tuple[onnx.ModelProto, Feed]]] = {
    "ms_deform_attn": _attention,
    "ms_deform_attn_fused": _fused_attention,
    "deform_conv": _deform_conv,
    "masked_conv": _masked_conv,
    "multi_level_roi_align": _roi_align,
}
