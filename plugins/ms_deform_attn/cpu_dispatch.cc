#include "core/cpu_isa.h"
#include "ms_deform_attn/cpu_kernel.h"

namespace visdeploy {

const MsDeformAttnCpuKernels& ms_deform_attn_cpu() {
#if defined(VD_X86)
  if (cpu_isa() == CpuIsa::kAvx512) return ms_deform_attn_avx512;
  if (cpu_isa() == CpuIsa::kAvx2) return ms_deform_attn_avx2;
#endif
  return ms_deform_attn_baseline;
}

int64_t ms_deform_attn_scratch(const MsDeformAttn& op) {
  // Eleven numbers and four tokens by point, and a row of zeros; sized for the widest type.
  const auto point = static_cast<int64_t>(11 * sizeof(double) + 4 * sizeof(int32_t));
  return kCacheLine + padded_points(op) * point + op.channels * static_cast<int64_t>(sizeof(double));
}

}  // namespace visdeploy
