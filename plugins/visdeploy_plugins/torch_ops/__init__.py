"""The operators in PyTorch. Importing this module defines them under `torch.ops.visdeploy`.

On CPU tensors they run our compiled kernels; without the library, and on other devices, the reference in plain
PyTorch, with one warning that says why. Gradients, `torch.compile`, `torch.export` work either way.
"""

from visdeploy_plugins.torch_ops.ms_deform_attn import ms_deform_attn
from visdeploy_plugins.torch_ops.ms_deform_attn_fused import ms_deform_attn_fused
from visdeploy_plugins.torch_ops.ms_deform_attn_fused_reference import ms_deform_attn_fused_reference
from visdeploy_plugins.torch_ops.ms_deform_attn_reference import ms_deform_attn_reference

__all__ = [
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "ms_deform_attn_fused_reference",
    "ms_deform_attn_reference",
]
