#include "core/cpu_isa.h"
#include "multi_level_roi_align/cpu_kernel.h"

namespace visdeploy {

const RoiAlignCpuKernels& multi_level_roi_align_cpu() {
#if defined(VD_X86)
  if (cpu_isa() == CpuIsa::kAvx512) return multi_level_roi_align_avx512;
  if (cpu_isa() == CpuIsa::kAvx2) return multi_level_roi_align_avx2;
#endif
  return multi_level_roi_align_baseline;
}

}  // namespace visdeploy
