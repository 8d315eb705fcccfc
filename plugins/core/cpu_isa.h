// Which of the compiled instruction sets the CPU kernels use.
#pragma once

namespace visdeploy {

enum class CpuIsa { kBaseline, kAvx2, kAvx512 };

// The best one that was compiled and that this machine runs, or the one named by the environment variable
// VISDEPLOY_PLUGINS_ISA (for tests and comparisons). Throws OpError when that name is unknown or cannot run here.
CpuIsa cpu_isa();

const char* cpu_isa_name(CpuIsa isa);

}  // namespace visdeploy
