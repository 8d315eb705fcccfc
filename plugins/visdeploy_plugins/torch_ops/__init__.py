"""Operators in PyTorch. Importing this module defines them under `torch.ops.visdeploy`.

They run the compiled kernels of visdeploy if these support the device of the tensors. Otherwise they run the reference
in plain PyTorch, with one warning that states the reason. In both cases gradients, `torch.compile` and `torch.export`
work.
"""

from visdeploy_plugins.torch_ops.deform_conv import deform_conv
from visdeploy_plugins.torch_ops.deform_conv_reference import deform_conv_reference
from visdeploy_plugins.torch_ops.masked_conv import masked_conv
from visdeploy_plugins.torch_ops.masked_conv_reference import masked_conv_reference
from visdeploy_plugins.torch_ops.masked_group_norm import masked_group_norm
from visdeploy_plugins.torch_ops.ms_deform_attn import ms_deform_attn
from visdeploy_plugins.torch_ops.ms_deform_attn_fused import ms_deform_attn_fused
from visdeploy_plugins.torch_ops.ms_deform_attn_fused_reference import ms_deform_attn_fused_reference
from visdeploy_plugins.torch_ops.ms_deform_attn_reference import ms_deform_attn_reference
from visdeploy_plugins.torch_ops.multi_level_roi_align import multi_level_roi_align
from visdeploy_plugins.torch_ops.multi_level_roi_align_reference import multi_level_roi_align_reference

__all__ = [
    "deform_conv",
    "deform_conv_reference",
    "masked_conv",
    "masked_conv_reference",
    "masked_group_norm",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "ms_deform_attn_fused_reference",
    "ms_deform_attn_reference",
    "multi_level_roi_align",
    "multi_level_roi_align_reference",
]
