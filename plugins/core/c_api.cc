#include "visdeploy/c_api.h"

#include "core/cpu_isa.h"
#include "core/error.h"

extern "C" {

int vd_abi_version(void) { return VD_ABI_VERSION; }

const char* vd_last_error(void) { return visdeploy::last_error(); }

const char* vd_cpu_isa(void) {
  const char* name = nullptr;
  visdeploy::guarded([&] { name = visdeploy::cpu_isa_name(visdeploy::cpu_isa()); });
  return name;
}

const char* vd_cuda_architectures(void) { return VD_CUDA_ARCHITECTURES; }

}  // extern "C"
