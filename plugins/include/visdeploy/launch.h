// How a CUDA kernel is written once and run twice: on a device by nvcc, and on the host by any C++ compiler with
// VD_EMULATE_CUDA defined, where loops play the grid. The host runs the same index arithmetic and the same sums, so
// that tests without a GPU see everything but races, alignment and launch limits.
//
// Three shapes of kernel, each a function object with a const `VD_HD void operator()`:
//   launch_items(op, body, items, stream)    body(item): one thread per item
//   launch_warps(op, body, items, stream)    body(warp, item): the lanes of one warp share an item
//   launch_blocks(op, program, count, stream) program(block, index): the threads of one block share an item in steps
#pragma once

#include "visdeploy/host_device.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#elif defined(VD_EMULATE_CUDA)
#include <cstring>
#else
#error "compile with nvcc, or with VD_EMULATE_CUDA defined"
#endif

#include "core/error.h"

namespace visdeploy {

constexpr int kLaunchThreads = 256;
constexpr int64_t kLaunchBlocks = 1 << 20;  // more items than these hold are taken in strides

template <typename T>
VD_HD void atomic_add(T* sum, T value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(sum, value);
#else
  *sum += value;
#endif
}

// The lanes that share one item; a single one on the host.
struct Warp {
  int lane = 0;
#if defined(__CUDACC__)
  static constexpr int kLanes = 32;
#else
  static constexpr int kLanes = 1;
#endif

  // The sum over all lanes, valid on lane 0.
  template <typename T>
  VD_HD T sum(T value) const {
#if defined(__CUDA_ARCH__)
    for (int step = kLanes / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
#endif
    return value;
  }
};

// The threads that share one item in steps. Program names
//   static constexpr int kThreads;  a multiple of 32
//   struct Shared;                  memory of the block, at most 48 KiB, without constructors
//   struct State;                   what one thread keeps from step to step (registers), without constructors
template <typename Program>
struct Block {
  typename Program::Shared& shared;
  typename Program::State* states;  // one on the device, kThreads on the host

  // Runs step(thread, state) on every thread, then waits for all of them. Every thread must reach every call.
  template <typename Step>
  VD_HD void each(Step&& step) {
#if defined(__CUDA_ARCH__)
    step(static_cast<int>(threadIdx.x), *states);
    __syncthreads();
#elif defined(VD_EMULATE_CUDA)
    for (int thread = 0; thread < Program::kThreads; ++thread) step(thread, states[thread]);
#else
    (void)step;
#endif
  }
};

#if defined(__CUDACC__)

template <typename Body>
__global__ void __launch_bounds__(kLaunchThreads) item_kernel(const Body body, const int64_t items) {
  const int64_t stride = int64_t(gridDim.x) * kLaunchThreads;
  for (int64_t i = int64_t(blockIdx.x) * kLaunchThreads + threadIdx.x; i < items; i += stride) body(i);
}

template <typename Body>
__global__ void __launch_bounds__(kLaunchThreads) warp_kernel(const Body body, const int64_t items) {
  const Warp warp = {static_cast<int>(threadIdx.x % Warp::kLanes)};
  const int64_t stride = int64_t(gridDim.x) * (kLaunchThreads / Warp::kLanes);
  const int64_t first = (int64_t(blockIdx.x) * kLaunchThreads + threadIdx.x) / Warp::kLanes;
  for (int64_t i = first; i < items; i += stride) body(warp, i);
}

// Two blocks per multiprocessor are enough to hide each other's waits, and let a thread of 256 have 128 registers: left
// to itself the compiler aims at more blocks, and keeps tiles in memory for that.
template <typename Program>
__global__ void __launch_bounds__(Program::kThreads, 2) block_kernel(const Program program, const int64_t count) {
  __shared__ typename Program::Shared shared;
  typename Program::State state;
  Block<Program> block = {shared, &state};
  for (int64_t i = blockIdx.x; i < count; i += gridDim.x) program(block, i);
}

inline void check_cuda(const char* op, const char* what, cudaError_t status) {
  if (status != cudaSuccess) fail(op, what, cudaGetErrorString(status), "success");
}

inline unsigned launch_grid(int64_t blocks) {
  return static_cast<unsigned>(blocks < kLaunchBlocks ? blocks : kLaunchBlocks);
}

template <typename Body>
void launch_items(const char* op, const Body& body, int64_t items, void* stream) {
  if (items <= 0) return;
  const unsigned grid = launch_grid((items + kLaunchThreads - 1) / kLaunchThreads);
  item_kernel<Body><<<grid, kLaunchThreads, 0, static_cast<cudaStream_t>(stream)>>>(body, items);
  check_cuda(op, "CUDA launch", cudaGetLastError());
}

template <typename Body>
void launch_warps(const char* op, const Body& body, int64_t items, void* stream) {
  if (items <= 0) return;
  constexpr int kWarps = kLaunchThreads / Warp::kLanes;
  const unsigned grid = launch_grid((items + kWarps - 1) / kWarps);
  warp_kernel<Body><<<grid, kLaunchThreads, 0, static_cast<cudaStream_t>(stream)>>>(body, items);
  check_cuda(op, "CUDA launch", cudaGetLastError());
}

template <typename Program>
void launch_blocks(const char* op, const Program& program, int64_t count, void* stream) {
  static_assert(sizeof(typename Program::Shared) <= 48 * 1024, "static shared memory is limited to 48 KiB");
  if (count <= 0) return;
  block_kernel<Program>
      <<<launch_grid(count), Program::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(program, count);
  check_cuda(op, "CUDA launch", cudaGetLastError());
}

// Queues the zeroing of device memory.
inline void launch_zero(const char* op, void* memory, int64_t bytes, void* stream) {
  if (bytes <= 0) return;
  check_cuda(op, "CUDA memset",
             cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), static_cast<cudaStream_t>(stream)));
}

#else

template <typename Body>
void launch_items(const char*, const Body& body, int64_t items, void*) {
  for (int64_t i = 0; i < items; ++i) body(i);
}

template <typename Body>
void launch_warps(const char*, const Body& body, int64_t items, void*) {
  for (int64_t i = 0; i < items; ++i) body(Warp{}, i);
}

template <typename Program>
void launch_blocks(const char*, const Program& program, int64_t count, void*) {
  typename Program::Shared shared;
  typename Program::State states[Program::kThreads];
  Block<Program> block = {shared, states};
  for (int64_t i = 0; i < count; ++i) {
    // Nothing may be read before it was written: on a device both would hold what the block before left there.
    std::memset(&shared, 0xff, sizeof(shared));
    std::memset(states, 0xff, sizeof(states));
    program(block, i);
  }
}

inline void launch_zero(const char*, void* memory, int64_t bytes, void*) {
  if (bytes > 0) std::memset(memory, 0, static_cast<size_t>(bytes));
}

#endif

}  // namespace visdeploy
