// CUDA launchers of multi-scale deformable attention; they know nothing of any engine.
#pragma once

#include "visdeploy/ms_deform_attn.h"

namespace visdeploy {

// Every tensor of op is in device memory, spatial_shapes and level_start_index (int64_t, or int32_t when wide_index is
// false) among them; op.geometry is not read. The kernels check these two themselves: a level that does not lie within
// value's tokens contributes nothing. The calls queue work on stream (a cudaStream_t) and return without waiting for
// it, and they allocate nothing, so that they can be captured in a CUDA graph. Throw OpError when CUDA refuses the
// launch.
//
// dtype is the vd_dtype of value and output. points_dtype is that of locations and weights: dtype, or VD_FLOAT32 where
// dtype is VD_FLOAT16 or VD_BFLOAT16. With op.reference_size above 0 it computes the fused form.
void ms_deform_attn_cuda_forward(const MsDeformAttn& op, int dtype, int points_dtype, void* stream);
// The plain form only, and float or double only, for all tensors alike. Also zeroes grad_value. Its sums are atomic:
// their last bits depend on the order in which blocks run.
void ms_deform_attn_cuda_backward(const MsDeformAttn& op, int dtype, void* stream);

}  // namespace visdeploy
