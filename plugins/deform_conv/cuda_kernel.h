// CUDA launchers of deformable convolution; they know nothing of any engine.
#pragma once

#include "visdeploy/deform_conv.h"

namespace visdeploy {

// dtype is a vd_dtype; tensors of op are in device memory. Queues the work on stream (a cudaStream_t) and returns
// without waiting for it. Needs no memory of its own. Throw OpError when CUDA refuses the launch.
void deform_conv_cuda_forward(const DeformConv& op, int dtype, void* stream);
// The input's gradient is summed by atomics: its last bits depend on the order in which blocks run.
void deform_conv_cuda_backward(const DeformConv& op, int dtype, void* stream);

}  // namespace visdeploy
