// CUDA launchers of multi-scale deformable attention; they know nothing of any engine.
#pragma once

#include "visdeploy/ms_deform_attn.h"

namespace visdeploy {

// Levels travel to the kernel with its arguments, so that a call needs no copy to the device.
constexpr int kMsDeformAttnCudaLevels = 256;

// dtype is a vd_dtype; tensors of op are in device memory, op.geometry is in host memory. Queues the work on stream (a
// cudaStream_t) and returns without waiting for it. Throw OpError when CUDA refuses the launch.
void ms_deform_attn_cuda_forward(const MsDeformAttn& op, int dtype, void* stream);
// Also zeroes grad_value. Its sums are atomic: their last bits depend on the order in which blocks run.
void ms_deform_attn_cuda_backward(const MsDeformAttn& op, int dtype, void* stream);

}  // namespace visdeploy
