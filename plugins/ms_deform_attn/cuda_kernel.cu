#include "ms_deform_attn/cuda_kernel.h"

#include "visdeploy/c_api.h"
#include "visdeploy/launch.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "ms_deform_attn";

// kWidth neighbouring channels, read and written in one access.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T channel[kWidth];
};

template <typename T, int kWidth>
VD_HD Pack<T, kWidth> load_pack(const T* address) {
#if defined(__CUDA_ARCH__)
  // Spelled out: left to itself the compiler may split a structure of 16-bit members into several loads.
  if constexpr (sizeof(Pack<T, kWidth>) == sizeof(uint4)) {
    union {
      uint4 word;
      Pack<T, kWidth> pack;
    } loaded;
    loaded.word = __ldg(reinterpret_cast<const uint4*>(address));
    return loaded.pack;
  }
#endif
  return *reinterpret_cast<const Pack<T, kWidth>*>(address);
}

template <typename T>
struct alignas(16) Four {
  T of[4];
};

// How the threads of a block share out rows (a query under one head) and channels. A block takes neighbouring queries
// of one head: they read neighbouring places of one map, which the block's cache then serves.
struct Tiling {
  int groups;  // accesses that one row's channels take
  int lanes;   // threads per row, one access each
  int rows;    // rows per block
  int chunk;   // sampling points of each row that are prepared at a time
  int64_t slices, tiles;

  template <typename Program>
  static Tiling of(const MsDeformAttn& op, int width) {
    Tiling tiling;
    tiling.groups = static_cast<int>(op.channels / width);
    tiling.lanes = tiling.groups < Program::kThreads ? tiling.groups : Program::kThreads;
    tiling.rows = Program::kThreads / tiling.lanes;
    tiling.chunk = Program::kCapacity / (tiling.rows + 1);
    tiling.slices = (tiling.groups + tiling.lanes - 1) / tiling.lanes;
    tiling.tiles = (op.queries + tiling.rows - 1) / tiling.rows;
    return tiling;
  }
};

// T: values. P: locations and weights. Threads first prepare a chunk of sampling points in shared memory, each point
// once, then sum it over the channels, each thread kWidth of them.
template <typename T, typename P, int kWidth, bool kFused>
struct Forward {
  using Real = Acc<T>;
  static constexpr int kThreads = 256;
  static constexpr int kCapacity = 528;  // 16 points of 32 rows, or 8 of 64, with a gap that keeps banks apart
  struct Shared {
    Four<int32_t> token[kCapacity];  // of a point's neighbours; -1 outside the map
    Four<Real> weight[kCapacity];
    Real largest[kFused ? kThreads : 1], total[kFused ? kThreads : 1];  // of each thread's share of a row's logits
  };
  struct State {
    Real sums[kWidth];
  };

  MsDeformAttn op;
  Tiling tiling;

  VD_HD void operator()(Block<Forward>& block, int64_t index) const {
    const int64_t slice = index % tiling.slices, head = index / tiling.slices % op.heads;
    const int64_t tile = index / tiling.slices / op.heads;
    const int64_t n = tile / tiling.tiles, first_query = tile % tiling.tiles * tiling.rows;
    // The first row's number among all (batch, query, head); the next query's is op.heads further on.
    const int64_t first_row = (n * op.queries + first_query) * op.heads + head;
    const int64_t left = op.queries - first_query;
    const int rows = left < tiling.rows ? static_cast<int>(left) : tiling.rows;
    const int samples = static_cast<int>(op.levels * op.points);
    if constexpr (kFused) measure_logits(block, first_row, rows, samples);
    block.each([&](int, State& state) {
      for (int c = 0; c < kWidth; ++c) state.sums[c] = Real(0);
    });
    const int64_t stride = op.heads * op.channels;
    const T* map = static_cast<const T*>(op.value) + n * op.tokens * stride + head * op.channels;
    for (int first = 0; first < samples; first += tiling.chunk) {
      const int count = samples - first < tiling.chunk ? samples - first : tiling.chunk;
      block.each([&](int thread, State&) {
        for (int i = thread; i < rows * count; i += kThreads) {
          prepare(block.shared, first_row, first_query + n * op.queries, i / count, first, i % count);
        }
      });
      block.each([&](int thread, State& state) {
        const int row = thread / tiling.lanes;
        const int64_t group = slice * tiling.lanes + thread % tiling.lanes;
        if (row >= rows || group >= tiling.groups) return;
        const T* channels = map + group * kWidth;
        for (int j = 0; j < count; ++j) add_point(block.shared, slot(row, j), channels, stride, state.sums);
      });
    }
    block.each([&](int thread, State& state) {
      const int row = thread / tiling.lanes;
      const int64_t group = slice * tiling.lanes + thread % tiling.lanes;
      if (row >= rows || group >= tiling.groups) return;
      Pack<T, kWidth> result;
      for (int c = 0; c < kWidth; ++c) store(result.channel + c, state.sums[c]);
      T* output = static_cast<T*>(op.output) + (first_row + row * op.heads) * op.channels + group * kWidth;
      *reinterpret_cast<Pack<T, kWidth>*>(output) = result;
    });
  }

 private:
  VD_HD int slot(int row, int point) const { return point * (tiling.rows + 1) + row; }

  // Finds the neighbours of point first + j of a row, and what each counts.
  VD_HD void prepare(Shared& shared, int64_t first_row, int64_t first_position, int row, int first, int j) const {
    const int sample = first + j, points = static_cast<int>(op.points), level_index = sample / points;
    const int64_t point = (first_row + row * op.heads) * op.levels * op.points + sample;
    const P* location = static_cast<const P*>(op.locations) + 2 * point;
    const Real x = load(location), y = load(location + 1);
    const Level level = read_level(op, level_index);
    Real weight = load(static_cast<const P*>(op.weights) + point);
    Neighbours<Real> found;
    if constexpr (kFused) {
      const int64_t reference = (first_position + row) * op.levels + level_index;
      found = locate_offset(x, y, find_origin<P>(op, reference, level), level);
      const int owner = row * tiling.lanes;
      weight = exponential(weight - shared.largest[owner]) / shared.total[owner];
    } else {
      found = locate(x, y, level);
    }
    Four<int32_t> token;
    Four<Real> share;
    for (int k = 0; k < 4; ++k) {
      token.of[k] = found.index[k] < 0 ? -1 : level.start + found.index[k];
      share.of[k] = weight * neighbour_weight(found, k);
    }
    shared.token[slot(row, j)] = token;
    shared.weight[slot(row, j)] = share;
  }

  // The largest logit of each row, and the sum of the exponentials of the others' distances from it, are left at the
  // row's first thread.
  VD_HD void measure_logits(Block<Forward>& block, int64_t first_row, int rows, int samples) const {
    constexpr int kSharers = 8;
    const int sharers = tiling.lanes < kSharers ? tiling.lanes : kSharers;
    block.each([&](int thread, State&) {
      const int row = thread / tiling.lanes, lane = thread % tiling.lanes;
      if (row >= rows || lane >= sharers || lane >= samples) return;
      const P* logit = static_cast<const P*>(op.weights) + (first_row + row * op.heads) * samples;
      Real largest = load(logit + lane), total = Real(0);
      for (int i = lane; i < samples; i += sharers) largest = larger(largest, load(logit + i));
      for (int i = lane; i < samples; i += sharers) total += exponential(load(logit + i) - largest);
      block.shared.largest[thread] = largest;
      block.shared.total[thread] = total;
    });
    block.each([&](int thread, State&) {
      if (thread % tiling.lanes > 0 || thread / tiling.lanes >= rows) return;
      Real largest = block.shared.largest[thread], total = Real(0);
      const int others = sharers < samples ? sharers : samples;
      for (int i = 0; i < others; ++i) largest = larger(largest, block.shared.largest[thread + i]);
      for (int i = 0; i < others; ++i) {
        // A share of minus infinities alone has no distance from itself, and adds nothing.
        const Real distance = block.shared.largest[thread + i] - largest;
        total += distance < Real(kFarBelow) ? Real(0) : block.shared.total[thread + i] * exponential(distance);
      }
      block.shared.largest[thread] = largest;
      block.shared.total[thread] = total;
    });
  }

  VD_HD static void add_point(const Shared& shared, int slot, const T* channels, int64_t stride, Real* sums) {
    const Four<int32_t> token = shared.token[slot];
    const Four<Real> weight = shared.weight[slot];
    // All four loads first, so that they are under way together.
    Pack<T, kWidth> neighbour[4] = {};
    for (int k = 0; k < 4; ++k) {
      if (token.of[k] >= 0) neighbour[k] = load_pack<T, kWidth>(channels + token.of[k] * stride);
    }
    for (int k = 0; k < 4; ++k) {
      if (token.of[k] >= 0) add_weighted<kWidth>(neighbour[k].channel, weight.of[k], sums);
    }
  }
};

// One warp per sampling point; its lanes share the channels and add up their dot products.
template <typename T>
struct Backward {
  MsDeformAttn op;

  VD_HD void operator()(const Warp& warp, int64_t point) const {
    const int64_t stride = op.heads * op.channels;
    const int64_t samples = op.levels * op.points;
    const int64_t row = point / samples;
    const int64_t head = row % op.heads, n = row / op.heads / op.queries;
    const Level level = read_level(op, point % samples / op.points);
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

template <typename T, typename P, int kWidth, bool kFused>
void launch_forward(const MsDeformAttn& op, void* stream) {
  using Program = Forward<T, P, kWidth, kFused>;
  const Tiling tiling = Tiling::of<Program>(op, kWidth);
  launch_blocks(kOp, Program{op, tiling}, op.batch * tiling.tiles * op.heads * tiling.slices, stream);
}

// 16 bytes per access where channels and addresses allow, else one channel.
template <typename T, typename P>
void launch_forward(const MsDeformAttn& op, void* stream) {
  if (op.tokens == 0) {  // nothing to sample, and there need be no values to point into
    return launch_zero(kOp, op.output, op.batch * op.queries * op.heads * op.channels * int64_t(sizeof(T)), stream);
  }
  constexpr int kWidest = 16 / sizeof(T);
  const auto start = reinterpret_cast<uintptr_t>(op.value) | reinterpret_cast<uintptr_t>(op.output);
  const bool wide = op.channels % kWidest == 0 && start % 16 == 0;
  const bool fused = op.reference_size > 0;
  if (wide && fused) launch_forward<T, P, kWidest, true>(op, stream);
  if (wide && !fused) launch_forward<T, P, kWidest, false>(op, stream);
  if (!wide && fused) launch_forward<T, P, 1, true>(op, stream);
  if (!wide && !fused) launch_forward<T, P, 1, false>(op, stream);
}

template <typename T>
void launch_backward(const MsDeformAttn& op, void* stream) {
  launch_zero(kOp, op.grad_value, op.batch * op.tokens * op.heads * op.channels * int64_t(sizeof(T)), stream);
  const int64_t points = op.batch * op.queries * op.heads * op.levels * op.points;
  launch_warps(kOp, Backward<T>{op}, points, stream);
}

}  // namespace

void ms_deform_attn_cuda_forward(const MsDeformAttn& op, int dtype, int points_dtype, void* stream) {
  const bool mixed = points_dtype != dtype;
  if (dtype == VD_FLOAT32) launch_forward<float, float>(op, stream);
  if (dtype == VD_FLOAT64) launch_forward<double, double>(op, stream);
  if (dtype == VD_FLOAT16 && mixed) launch_forward<Half, float>(op, stream);
  if (dtype == VD_FLOAT16 && !mixed) launch_forward<Half, Half>(op, stream);
  if (dtype == VD_BFLOAT16 && mixed) launch_forward<BFloat16, float>(op, stream);
  if (dtype == VD_BFLOAT16 && !mixed) launch_forward<BFloat16, BFloat16>(op, stream);
}

void ms_deform_attn_cuda_backward(const MsDeformAttn& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_backward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_backward<double>(op, stream);
}

}  // namespace visdeploy
