// CUDA launchers of masked convolution; they know nothing of any engine.
#pragma once

#include "visdeploy/masked_conv.h"

namespace visdeploy {

// dtype is a vd_dtype; tensors of op are in device memory. Queue the work on stream (a cudaStream_t) and return without
// waiting for it; no workspace is needed and nothing is allocated. Throw OpError when CUDA refuses the launch.
void masked_conv_cuda_forward(const MaskedConv& op, int dtype, void* stream);
// float32 and float64. Every sum is taken by one thread or warp in one order: the same bits each time.
void masked_conv_cuda_backward(const MaskedConv& op, int dtype, void* stream);

}  // namespace visdeploy
