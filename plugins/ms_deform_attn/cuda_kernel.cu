#include "ms_deform_attn/cuda_kernel.h"

#include <string>

#include "visdeploy/c_api.h"
#include "visdeploy/launch.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "ms_deform_attn";

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
struct Forward {
  MsDeformAttn op;
  Geometry geometry;

  VD_HD void operator()(int64_t i) const {
    const int64_t stride = op.heads * op.channels;
    const int64_t groups = op.channels / kWidth;
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
        for (int k = 0; k < 4; ++k) {
          if (found.index[k] < 0) continue;
          const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(origin + found.index[k] * stride);
          add_weighted<kWidth>(pack.channel, attention * neighbour_weight(found, k), sums);
        }
      }
    }
    Pack<T, kWidth> result;
    for (int c = 0; c < kWidth; ++c) store(result.channel + c, sums[c]);
    reinterpret_cast<Pack<T, kWidth>*>(op.output)[i] = result;
  }
};

// One warp per sampling point; its lanes share the channels and add up their dot products.
template <typename T>
struct Backward {
  MsDeformAttn op;
  Geometry geometry;

  VD_HD void operator()(const Warp& warp, int64_t point) const {
    const int64_t stride = op.heads * op.channels;
    const int64_t samples = op.levels * op.points;
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
    for (int k = 0; k < 4; ++k) {
      if (found.index[k] < 0) continue;
      const T share = weight * neighbour_weight(found, k);
      for (int64_t c = warp.lane; c < op.channels; c += Warp::kLanes) {
        const int64_t offset = found.index[k] * stride + c;
        dots[k] += grad_output[c] * value[offset];
        atomic_add(grad_value + offset, share * grad_output[c]);
      }
    }
    for (int k = 0; k < 4; ++k) dots[k] = warp.sum(dots[k]);
    if (warp.lane > 0) return;
    const PointGradients<T> grad = point_gradients(found, dots, weight, level);
    static_cast<T*>(op.grad_weights)[point] = grad.weight;
    static_cast<T*>(op.grad_locations)[2 * point] = grad.location_x;
    static_cast<T*>(op.grad_locations)[2 * point + 1] = grad.location_y;
  }
};

Geometry geometry_of(const MsDeformAttn& op) {
  if (op.levels > kMsDeformAttnCudaLevels) {
    fail(kOp, "tensor spatial_shapes on CUDA", std::to_string(op.levels) + " levels",
         "at most " + std::to_string(kMsDeformAttnCudaLevels));
  }
  Geometry geometry = {};
  for (int64_t l = 0; l < op.levels; ++l) geometry.level[l] = op.geometry[l];
  return geometry;
}

template <typename T, int kWidth>
bool fits(const MsDeformAttn& op) {
  const auto start = reinterpret_cast<uintptr_t>(op.value) | reinterpret_cast<uintptr_t>(op.output);
  return op.channels % kWidth == 0 && start % (sizeof(T) * kWidth) == 0;
}

// 16 bytes per access where channels and addresses allow.
template <typename T>
void launch_forward(const MsDeformAttn& op, void* stream) {
  constexpr int kWidest = 16 / sizeof(T);
  const int64_t rows = op.batch * op.queries * op.heads;
  if (fits<T, kWidest>(op)) {
    launch_items(kOp, Forward<T, kWidest>{op, geometry_of(op)}, rows * (op.channels / kWidest), stream);
  } else {
    launch_items(kOp, Forward<T, 1>{op, geometry_of(op)}, rows * op.channels, stream);
  }
}

template <typename T>
void launch_backward(const MsDeformAttn& op, void* stream) {
  launch_zero(kOp, op.grad_value, op.batch * op.tokens * op.heads * op.channels * int64_t(sizeof(T)), stream);
  const int64_t points = op.batch * op.queries * op.heads * op.levels * op.points;
  launch_warps(kOp, Backward<T>{op, geometry_of(op)}, points, stream);
}

}  // namespace

void ms_deform_attn_cuda_forward(const MsDeformAttn& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_forward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_forward<double>(op, stream);
  if (dtype == VD_FLOAT16) launch_forward<Half>(op, stream);
  if (dtype == VD_BFLOAT16) launch_forward<BFloat16>(op, stream);
}

void ms_deform_attn_cuda_backward(const MsDeformAttn& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_backward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_backward<double>(op, stream);
}

}  // namespace visdeploy
