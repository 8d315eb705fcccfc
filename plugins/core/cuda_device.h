// The CUDA device that this library's kernels run on.
#pragma once

namespace visdeploy {

// Makes device the calling thread's, for this library too: it carries a CUDA runtime of its own, beside the caller's.
// The first call for a device asks whether the kernels were compiled for it. Throws OpError when there is no such
// device, when the driver is too old, or when there is neither machine code nor PTX for it.
void set_cuda_device(int device);

}  // namespace visdeploy
