#include "visdeploy/c_api.h"

#include "core/cpu_isa.h"
#include "core/cuda_device.h"
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

int vd_cuda_set_device(int device) {
  return visdeploy::guarded([&] {
#if defined(VD_EMULATE_CUDA)
    if (device != 0) visdeploy::fail("visdeploy_plugins", "CUDA device", std::to_string(device), "0, the emulated one");
#elif defined(VD_CUDA)
    visdeploy::set_cuda_device(device);
#else
    visdeploy::fail("visdeploy_plugins", "CUDA device " + std::to_string(device), "a library built without CUDA",
                    "one built where nvcc is found");
#endif
  });
}

}  // extern "C"
