// Whole calls on the CPU, for any engine's threads.
#pragma once

#include <functional>

#include "deform_conv/cpu_kernel.h"

namespace visdeploy {

// Runs body(begin, end) on parts of [0, items), each once, and returns when all are done; cost is the number of
// multiply-adds per item. Must pass on what body throws.
using Parallel =
    std::function<void(int64_t items, int64_t cost, const std::function<void(int64_t begin, int64_t end)>& body)>;

// Packs the weights as deform_conv_cpu_forward wants them; op needs channels, outputs, groups, kernel and weight.
// packed holds deform_conv_packed_bytes.
int64_t deform_conv_packed_bytes(const DeformConv& op, int dtype);
void deform_conv_pack(const DeformConv& op, int dtype, void* packed, const Parallel& parallel);

// packed may be null: then the weights are packed on the way.
void deform_conv_cpu_forward(const DeformConv& op, int dtype, const void* packed, const Parallel& parallel);
void deform_conv_cpu_backward(const DeformConv& op, int dtype, const Parallel& parallel);

}  // namespace visdeploy
