// CPU kernels of multi-level RoI align, one table per instruction set.
#pragma once

#include "multi_level_roi_align/cpu_taps.h"

namespace visdeploy {

struct RoiAlignCpuKernels {
  // Items [begin, end) of RoiAlignWork, its taps found; indexed by vd_dtype. scratch holds RoiAlignWork::scratch
  // doubles.
  void (*forward[5])(const RoiAlignJob& job, int64_t begin, int64_t end, void* scratch);
  // The same; each gradient is summed by one thread, in one order.
  void (*backward[5])(const RoiAlignJob& job, int64_t begin, int64_t end, void* scratch);
};

extern const RoiAlignCpuKernels multi_level_roi_align_baseline;
extern const RoiAlignCpuKernels multi_level_roi_align_avx2;
extern const RoiAlignCpuKernels multi_level_roi_align_avx512;

// The table for cpu_isa().
const RoiAlignCpuKernels& multi_level_roi_align_cpu();

}  // namespace visdeploy
