// CPU kernels of multi-scale deformable attention, one table per instruction set.
#pragma once

#include "visdeploy/ms_deform_attn.h"

namespace visdeploy {

// Bytes of scratch that one run of a forward kernel needs.
int64_t ms_deform_attn_scratch(const MsDeformAttn& op);

struct MsDeformAttnCpuKernels {
  // Rows [begin, end) of the batch * queries output rows; indexed by vd_dtype.
  void (*forward[5])(const MsDeformAttn& op, int64_t begin, int64_t end, void* scratch);
  // Maps [begin, end) of the batch * heads maps. Each map's gradient is summed by one thread, in one order.
  void (*backward[5])(const MsDeformAttn& op, int64_t begin, int64_t end);
};

extern const MsDeformAttnCpuKernels ms_deform_attn_baseline;
extern const MsDeformAttnCpuKernels ms_deform_attn_avx2;
extern const MsDeformAttnCpuKernels ms_deform_attn_avx512;

// The table for cpu_isa().
const MsDeformAttnCpuKernels& ms_deform_attn_cpu();

}  // namespace visdeploy
