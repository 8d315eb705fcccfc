#include "core/error.h"
#include "ms_deform_attn/cuda_kernel.h"
#include "visdeploy/c_api.h"

namespace visdeploy {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMaxBlocks = 1u << 20;
constexpr int kWarp = 32;

struct Geometry {
  Level level[kMsDeformAttnCudaLevels];
};

// kWidth neighbouring channels, read in one access.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T channel[kWidth];
};

// One thread per (row, head, kWidth channels); neighbouring threads read neighbouring channels.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) forward_kernel(const MsDeformAttn op, const Geometry geometry) {
  const int64_t stride = op.heads * op.channels;
  const int64_t groups = op.channels / kWidth;
  const int64_t total = op.batch * op.queries * op.heads * groups;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < total; i += int64_t(gridDim.x) * kThreads) {
    const int64_t group = i % groups, row = i / groups;  // row counts (batch, query, head)
    const int64_t head = row % op.heads, n = row / op.heads / op.queries;
    const T* map = static_cast<const T*>(op.value) + n * op.tokens * stride + head * op.channels + group * kWidth;
    const T* location = static_cast<const T*>(op.locations) + row * op.levels * op.points * 2;
    const T* weight = static_cast<const T*>(op.weights) + row * op.levels * op.points;
    Acc<T> sums[kWidth] = {};
    for (int l = 0; l < op.levels; ++l) {
      const Level level = geometry.level[l];
      const T* origin = map + level.start * stride;
      for (int64_t p = 0; p < op.points; ++p, location += 2, ++weight) {
        const Neighbours<Acc<T>> found = locate(load(location), load(location + 1), level);
        const Acc<T> attention = load(weight);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (found.index[k] < 0) continue;
          const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(origin + found.index[k] * stride);
          add_weighted<kWidth>(pack.channel, attention * neighbour_weight(found, k), sums);
        }
      }
    }
    Pack<T, kWidth> result;
#pragma unroll
    for (int c = 0; c < kWidth; ++c) store(result.channel + c, sums[c]);
    reinterpret_cast<Pack<T, kWidth>*>(op.output)[i] = result;
  }
}

// One warp per sampling point; its lanes share the channels and add up their dot products.
template <typename T>
__global__ void __launch_bounds__(kThreads) backward_kernel(const MsDeformAttn op, const Geometry geometry) {
  const int lane = threadIdx.x % kWarp;
  const int64_t stride = op.heads * op.channels;
  const int64_t samples = op.levels * op.points;
  const int64_t total = op.batch * op.queries * op.heads * samples;
  const int64_t warps = int64_t(gridDim.x) * (kThreads / kWarp);
  for (int64_t point = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / kWarp; point < total; point += warps) {
    const int64_t row = point / samples;
    const int64_t head = row % op.heads, n = row / op.heads / op.queries;
    const Level level = geometry.level[point % samples / op.points];
    const int64_t map = (n * op.tokens + level.start) * stride + head * op.channels;
    const T* value = static_cast<const T*>(op.value) + map;
    const T* grad_output = static_cast<const T*>(op.grad_output) + row * op.channels;
    T* grad_value = static_cast<T*>(op.grad_value) + map;
    const T* location = static_cast<const T*>(op.locations) + 2 * point;
    const T weight = static_cast<const T*>(op.weights)[point];
    const Neighbours<T> found = locate(location[0], location[1], level);
    T dots[4] = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (found.index[k] < 0) continue;
      const T share = weight * neighbour_weight(found, k);
      for (int64_t c = lane; c < op.channels; c += kWarp) {
        const int64_t offset = found.index[k] * stride + c;
        dots[k] += grad_output[c] * value[offset];
        atomicAdd(grad_value + offset, share * grad_output[c]);
      }
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      for (int step = kWarp / 2; step > 0; step /= 2) dots[k] += __shfl_down_sync(0xffffffffu, dots[k], step);
    }
    if (lane == 0) {
      const PointGradients<T> grad = point_gradients(found, dots, weight, level);
      static_cast<T*>(op.grad_weights)[point] = grad.weight;
      static_cast<T*>(op.grad_locations)[2 * point] = grad.location_x;
      static_cast<T*>(op.grad_locations)[2 * point + 1] = grad.location_y;
    }
  }
}

Geometry geometry_of(const MsDeformAttn& op) {
  if (op.levels > kMsDeformAttnCudaLevels) {
    fail("ms_deform_attn", "tensor spatial_shapes on CUDA", std::to_string(op.levels) + " levels",
         "at most " + std::to_string(kMsDeformAttnCudaLevels));
  }
  Geometry geometry = {};
  for (int64_t l = 0; l < op.levels; ++l) geometry.level[l] = op.geometry[l];
  return geometry;
}

void succeed(cudaError_t status) {
  if (status != cudaSuccess) fail("ms_deform_attn", "CUDA launch", cudaGetErrorString(status), "success");
}

unsigned blocks_for(int64_t threads) {
  const int64_t blocks = (threads + kThreads - 1) / kThreads;
  return blocks < kMaxBlocks ? static_cast<unsigned>(blocks) : kMaxBlocks;
}

template <typename T, int kWidth>
bool fits(const MsDeformAttn& op) {
  const auto start = reinterpret_cast<uintptr_t>(op.value) | reinterpret_cast<uintptr_t>(op.output);
  return op.channels % kWidth == 0 && start % (sizeof(T) * kWidth) == 0;
}

template <typename T, int kWidth>
void launch_forward(const MsDeformAttn& op, cudaStream_t stream) {
  const int64_t threads = op.batch * op.queries * op.heads * (op.channels / kWidth);
  if (threads == 0) return;
  forward_kernel<T, kWidth><<<blocks_for(threads), kThreads, 0, stream>>>(op, geometry_of(op));
  succeed(cudaGetLastError());
}

// 16 bytes per access where channels and addresses allow.
template <typename T>
void launch_widest(const MsDeformAttn& op, cudaStream_t stream) {
  constexpr int kWidest = 16 / sizeof(T);
  return fits<T, kWidest>(op) ? launch_forward<T, kWidest>(op, stream) : launch_forward<T, 1>(op, stream);
}

template <typename T>
void launch_backward(const MsDeformAttn& op, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(op.batch * op.tokens * op.heads * op.channels) * sizeof(T);
  if (bytes > 0) succeed(cudaMemsetAsync(op.grad_value, 0, bytes, stream));
  const int64_t threads = op.batch * op.queries * op.heads * op.levels * op.points * kWarp;
  if (threads == 0) return;
  backward_kernel<T><<<blocks_for(threads), kThreads, 0, stream>>>(op, geometry_of(op));
  succeed(cudaGetLastError());
}

}  // namespace

void ms_deform_attn_cuda_forward(const MsDeformAttn& op, int dtype, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (dtype == VD_FLOAT32) launch_widest<float>(op, queue);
  if (dtype == VD_FLOAT64) launch_widest<double>(op, queue);
  if (dtype == VD_FLOAT16) launch_widest<Half>(op, queue);
  if (dtype == VD_BFLOAT16) launch_widest<BFloat16>(op, queue);
}

void ms_deform_attn_cuda_backward(const MsDeformAttn& op, int dtype, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (dtype == VD_FLOAT32) launch_backward<float>(op, queue);
  if (dtype == VD_FLOAT64) launch_backward<double>(op, queue);
}

}  // namespace visdeploy
