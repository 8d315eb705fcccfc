"""Operators in ONNX files: custom nodes with a function body of standard operators.

    register_schemas()
    program = torch.onnx.export(model, args, dynamo=True, custom_translation_table=translation_table())
    onnx.save(add_function_bodies(program.model_proto), path)

A runtime without custom operators runs the bodies; ONNX Runtime with the library of visdeploy runs the kernels instead.
"""

from visdeploy_plugins.onnx_functions.deform_conv import deform_conv_function
from visdeploy_plugins.onnx_functions.export import add_function_bodies, register_schemas, translation_table
from visdeploy_plugins.onnx_functions.masked_conv import masked_conv_function
from visdeploy_plugins.onnx_functions.ms_deform_attn import ms_deform_attn_function, ms_deform_attn_fused_function
from visdeploy_plugins.onnx_functions.multi_level_roi_align import multi_level_roi_align_function
from visdeploy_plugins.onnx_functions.op import DOMAIN, VERSION

__all__ = [
    "DOMAIN",
    "VERSION",
    "add_function_bodies",
    "deform_conv_function",
    "masked_conv_function",
    "ms_deform_attn_function",
    "ms_deform_attn_fused_function",
    "multi_level_roi_align_function",
    "register_schemas",
    "translation_table",
]
