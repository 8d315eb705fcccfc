// CUDA launchers of multi-level RoI align; they know nothing of any engine.
#pragma once

#include "visdeploy/roi_align.h"

namespace visdeploy {

// dtype is a vd_dtype, that of the features; tensors of op are in device memory, op itself travels with the kernel's
// arguments. Queues the work on stream (a cudaStream_t) and returns without waiting for it. A box whose batch index
// names no image gives zeros. Throw OpError when CUDA refuses the launch.
void multi_level_roi_align_cuda_forward(const MultiLevelRoiAlign& op, int dtype, void* stream);
// Also zeroes the gradients. Its sums are atomic: their last bits depend on the order in which blocks run.
void multi_level_roi_align_cuda_backward(const MultiLevelRoiAlign& op, int dtype, void* stream);

}  // namespace visdeploy
