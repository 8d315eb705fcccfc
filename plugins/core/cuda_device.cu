#include "core/cuda_device.h"

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "core/error.h"

namespace visdeploy {
namespace {

// Compiled for the same capabilities as all other kernels: where this one can be loaded, they can.
__global__ void probe_kernel() {}

void check(const char* what, int device, cudaError_t status) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // or the next launch would report it once more
  fail("visdeploy_plugins", std::string(what) + std::to_string(device), cudaGetErrorString(status),
       std::string("one that runs kernels for compute capability ") + VD_CUDA_ARCHITECTURES +
           " or PTX of the first or last of them, with a driver for CUDA " + std::to_string(CUDART_VERSION / 1000));
}

}  // namespace

void set_cuda_device(int device) {
  check("no use of CUDA device ", device, cudaSetDevice(device));
  static std::atomic<uint64_t> usable{0};  // a bit per device
  const uint64_t bit = device < 64 ? uint64_t(1) << device : 0;
  if (usable.load(std::memory_order_relaxed) & bit) return;
  cudaFuncAttributes attributes;
  check("kernels do not load on CUDA device ", device, cudaFuncGetAttributes(&attributes, probe_kernel));
  usable.fetch_or(bit, std::memory_order_relaxed);
}

}  // namespace visdeploy
