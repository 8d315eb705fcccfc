#include "core/cpu_isa.h"

#include <cstdlib>
#include <string>

#include "core/error.h"

namespace visdeploy {
namespace {

bool runs_here(CpuIsa isa) {
#if defined(VD_X86)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == CpuIsa::kAvx2) return avx2;
  if (isa == CpuIsa::kAvx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == CpuIsa::kBaseline;
}

CpuIsa choose() {
  constexpr CpuIsa kBestFirst[] = {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kBaseline};
  const char* wanted = std::getenv("VISDEPLOY_PLUGINS_ISA");
  std::string possible;
  for (const CpuIsa isa : kBestFirst) {
    if (!runs_here(isa)) continue;
    if (wanted == nullptr || *wanted == '\0' || std::string(wanted) == cpu_isa_name(isa)) return isa;
    possible += (possible.empty() ? "" : " or ") + std::string(cpu_isa_name(isa));
  }
  fail("visdeploy_plugins", "environment variable VISDEPLOY_PLUGINS_ISA", wanted, possible + " on this machine");
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa chosen = choose();
  return chosen;
}

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace visdeploy
