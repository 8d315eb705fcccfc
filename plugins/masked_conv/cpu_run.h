// Masked convolution on the CPU, for whatever engine brings the threads.
#pragma once

#include <cstdint>
#include <functional>

#include "core/aligned_buffer.h"
#include "masked_conv/arguments.h"

namespace visdeploy {

// Runs body(begin, end) on parts of [0, items), each item worth `cost` multiply-adds. body does not throw.
using ParallelRun = std::function<void(int64_t items, int64_t cost, const std::function<void(int64_t, int64_t)>& body)>;

// The weights of a call as the kernels want them. They may be kept for later calls with the same weights.
AlignedBuffer masked_conv_pack(const MaskedConvCall& call, const ParallelRun& run);

// packed is what masked_conv_pack gave, or null to pack now.
void masked_conv_cpu_forward(const MaskedConvCall& call, const void* packed, const ParallelRun& run);
void masked_conv_cpu_backward(const MaskedConvCall& call, const ParallelRun& run);

}  // namespace visdeploy
