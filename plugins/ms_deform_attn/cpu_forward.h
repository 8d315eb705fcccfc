// The forward pass on the CPU for any engine that can share out work.
#pragma once

#include <functional>

#include "ms_deform_attn/arguments.h"

namespace visdeploy {

// How an engine runs work on its threads: body(begin, end, scratch) on ranges that make up [0, items), each with
// scratch_bytes of memory of its own. cost is the number of multiply-adds per item.
using CpuRange = std::function<void(int64_t begin, int64_t end, void* scratch)>;
using CpuWorkers = std::function<void(int64_t items, int64_t cost, int64_t scratch_bytes, const CpuRange& body)>;

void ms_deform_attn_cpu_forward(const MsDeformAttnCall& call, const CpuWorkers& workers);

}  // namespace visdeploy
