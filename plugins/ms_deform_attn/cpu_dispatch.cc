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
  // Two sets of rows (address and weight), and a row of zeros; sized for the widest type.
  const auto row = static_cast<int64_t>(sizeof(void*) + sizeof(double));
  return 2 * 4 * op.levels * op.points * row + op.channels * static_cast<int64_t>(sizeof(double));
}

}  // namespace visdeploy
