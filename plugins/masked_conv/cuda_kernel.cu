#include "masked_conv/cuda_kernel.h"

#include "visdeploy/launch.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "masked_conv";

// Positions of one sample among which active ones are packed together. A block scans all of them once, which costs
// little beside its products; each segment leaves one tile partly filled.
constexpr int64_t kSegment = 16384;
constexpr int kTile = 64;        // output channels, and positions, that a block computes
constexpr int kDepth = 16;       // products in shared memory at a time
constexpr int kLookahead = 256;  // products whose addresses are worked out at a time
constexpr int kEach = 4;         // output channels, and positions, of one thread: (kTile / kEach)^2 threads
constexpr int kPadding = 4;      // columns beside a tile, so that threads that store one step each meet few banks
constexpr int kNarrow = 8;       // groups of so few output channels would leave most of a tile idle

// A block takes one tile of one segment: it packs the positions of the segment that belong to the tile, then
// multiplies weights by the pixels that they read. Blocks beyond the last active position leave after the scan, so
// that nothing about the mask needs to be known to launch.
template <typename T>
struct Forward {
  static constexpr int kThreads = (kTile / kEach) * (kTile / kEach);
  static constexpr int kSlices = 16;  // of the threads, for adding up their counts

  struct alignas(sizeof(Acc<T>) * kEach) Each {  // read in one or two accesses
    Acc<T> value[kEach];
  };
  struct Product {
    int64_t channel;  // where the channel's plane begins, from the first one of the group
    int64_t down, right;
  };
  struct Shared {
    int32_t count[kThreads], slice[kSlices];
    int32_t position[kTile];  // from the segment's first on; not set beyond those that are active
    Product product[kLookahead];
    alignas(Each) Acc<T> weight[kDepth][kTile + kPadding];
    alignas(Each) Acc<T> pixel[kDepth][kTile + kPadding];
  };
  struct State {
    Acc<T> sum[kEach][kEach];
    int64_t y, x;  // of the position whose pixels this thread fetches, in the input, for tap 0
    bool fetches;
    int32_t before;  // active positions before this thread's strip
  };

  MaskedConv op;

  VD_HD int64_t segments() const { return (op.output_plane() + kSegment - 1) / kSegment; }
  VD_HD int64_t segment_size() const { return op.output_plane() < kSegment ? op.output_plane() : kSegment; }
  VD_HD int64_t position_tiles() const { return (segment_size() + kTile - 1) / kTile; }
  VD_HD int64_t channel_tiles() const { return (op.group_outputs() + kTile - 1) / kTile; }
  VD_HD int64_t blocks() const { return op.batch * segments() * position_tiles() * op.groups * channel_tiles(); }

  VD_HD void operator()(Block<Forward>& block, int64_t index) const {
    const int64_t channels = index % channel_tiles(), group = index / channel_tiles() % op.groups;
    index /= channel_tiles() * op.groups;
    const int64_t tile = index % position_tiles(), segment = index / position_tiles() % segments();
    const int64_t n = index / position_tiles() / segments();
    const int32_t filled = find_positions(block, n, segment, tile);
    if (filled == 0) return;
    const int64_t depth = op.group_channels() * op.taps();
    const T* weight = static_cast<const T*>(op.weight) + (group * op.group_outputs() + channels * kTile) * depth;
    const T* input =
        static_cast<const T*>(op.input) + (n * op.channels + group * op.group_channels()) * op.input_plane();
    const int64_t outputs = op.group_outputs() - channels * kTile;  // may be more than the tile has
    for (int64_t first = 0; first < depth; first += kLookahead) {
      block.each([&](int thread, State&) { find_product(block.shared, first + thread, thread); });
      const int64_t stop = first + kLookahead < depth ? first + kLookahead : depth;
      for (int64_t k = first; k < stop; k += kDepth) {
        block.each([&](int thread, State& state) {
          fetch_weights(block.shared, weight, outputs, depth, k, thread);
          fetch_pixels(block.shared, state, input, stop, k, static_cast<int>(k - first), thread);
        });
        block.each([&](int thread, State& state) { multiply(block.shared, state, thread); });
      }
    }
    block.each([&](int thread, State& state) {
      const int64_t channel = group * op.group_outputs() + channels * kTile;
      write(block.shared, state, (n * op.outputs + channel) * op.output_plane() + segment * kSegment, channel, outputs,
            filled, thread);
    });
  }

  // Lists the tile's positions in shared memory and returns how many there are, the same on every thread.
  VD_HD int32_t find_positions(Block<Forward>& block, int64_t n, int64_t segment, int64_t tile) const {
    const int64_t plane = op.output_plane(), begin = segment * kSegment;
    const int64_t end = begin + kSegment < plane ? begin + kSegment : plane;
    const int64_t strip = (end - begin + kThreads - 1) / kThreads, first = tile * kTile;
    const auto each_active = [&](int thread, auto&& found) {
      const int64_t from = begin + thread * strip, to = from + strip < end ? from + strip : end;
      for (int64_t i = from; i < to; ++i) {
        if (is_active(op, n * plane + i)) found(i);
      }
    };
    block.each([&](int thread, State&) {
      int32_t count = 0;
      each_active(thread, [&](int64_t) { ++count; });
      block.shared.count[thread] = count;
    });
    constexpr int kSlice = kThreads / kSlices;
    block.each([&](int thread, State& state) {
      state.before = 0;
      for (int i = thread / kSlice * kSlice; i < thread; ++i) state.before += block.shared.count[i];
      if (thread % kSlice == kSlice - 1)
        block.shared.slice[thread / kSlice] = state.before + block.shared.count[thread];
    });
    block.each([&](int thread, State& state) {
      for (int i = 0; i < thread / kSlice; ++i) state.before += block.shared.slice[i];
      int64_t rank = state.before - first;
      if (rank >= kTile || rank + block.shared.count[thread] <= 0) return;
      each_active(thread, [&](int64_t i) {
        if (rank >= 0 && rank < kTile) block.shared.position[rank] = static_cast<int32_t>(i - begin);
        ++rank;
      });
    });
    int64_t total = -first;
    for (int i = 0; i < kSlices; ++i) total += block.shared.slice[i];
    const auto filled = static_cast<int32_t>(total < 0 ? 0 : total > kTile ? kTile : total);
    block.each([&](int thread, State& state) {
      const int column = thread % kTile;
      state.fetches = column < filled;
      const int64_t position = state.fetches ? begin + block.shared.position[column] : 0;
      state.y = position / op.columns * op.stride[0] - op.padding[0];
      state.x = position % op.columns * op.stride[1] - op.padding[1];
      for (int i = 0; i < kEach * kEach; ++i) state.sum[i / kEach][i % kEach] = Acc<T>(0);
    });
    return filled;
  }

  // Products are counted as the weights lie: channel by channel, tap by tap.
  VD_HD void find_product(Shared& shared, int64_t k, int slot) const {
    const int64_t tap = k % op.taps();
    shared.product[slot] = {k / op.taps() * op.input_plane(), tap / op.kernel[1] * op.dilation[0],
                            tap % op.kernel[1] * op.dilation[1]};
  }

  VD_HD void fetch_weights(Shared& shared, const T* weight, int64_t outputs, int64_t depth, int64_t k,
                           int thread) const {
    for (int i = thread; i < kTile * kDepth; i += kThreads) {
      const int row = i / kDepth, step = i % kDepth;
      const bool there = row < outputs && k + step < depth;
      shared.weight[step][row] = there ? load(weight + row * depth + k + step) : Acc<T>(0);
    }
  }

  VD_HD void fetch_pixels(Shared& shared, const State& state, const T* input, int64_t stop, int64_t k, int slot,
                          int thread) const {
    for (int step = thread / kTile; step < kDepth; step += kThreads / kTile) {
      Acc<T> value = 0;
      if (state.fetches && k + step < stop) {
        const Product product = shared.product[slot + step];
        const int64_t y = state.y + product.down, x = state.x + product.right;
        if (y >= 0 && y < op.height && x >= 0 && x < op.width) value = load(input + product.channel + y * op.width + x);
      }
      shared.pixel[step][thread % kTile] = value;
    }
  }

  VD_HD void multiply(const Shared& shared, State& state, int thread) const {
    const int row = thread / (kTile / kEach) * kEach, column = thread % (kTile / kEach) * kEach;
    for (int step = 0; step < kDepth; ++step) {
      const Each left = *reinterpret_cast<const Each*>(&shared.weight[step][row]);
      const Each right = *reinterpret_cast<const Each*>(&shared.pixel[step][column]);
      for (int i = 0; i < kEach; ++i) {
        for (int j = 0; j < kEach; ++j) state.sum[i][j] += left.value[i] * right.value[j];
      }
    }
  }

  // Stores the sums; first is where the segment begins in the plane of the tile's first channel.
  VD_HD void write(const Shared& shared, const State& state, int64_t first, int64_t channel, int64_t outputs,
                   int32_t filled, int thread) const {
    const int row = thread / (kTile / kEach) * kEach, column = thread % (kTile / kEach) * kEach;
    for (int i = 0; i < kEach && row + i < outputs; ++i) {
      const Acc<T> bias = op.bias == nullptr ? Acc<T>(0) : load(static_cast<const T*>(op.bias) + channel + row + i);
      T* output = static_cast<T*>(op.output) + first + (row + i) * op.output_plane();
      for (int j = 0; j < kEach && column + j < filled; ++j) {
        store(output + shared.position[column + j], state.sum[i][j] + bias);
      }
    }
  }
};

// One thread per output value, zeros included: for depth-wise filters and other narrow groups.
template <typename T>
struct NarrowForward {
  MaskedConv op;

  VD_HD void operator()(int64_t i) const {
    const int64_t plane = op.output_plane(), p = i % plane, o = i / plane % op.outputs, n = i / plane / op.outputs;
    Acc<T> sum = 0;
    if (is_active(op, n * plane + p)) {
      const int64_t channels = op.group_channels(), first = o / op.group_outputs() * channels;
      const T* weight = static_cast<const T*>(op.weight) + o * channels * op.taps();
      const T* input = static_cast<const T*>(op.input) + (n * op.channels + first) * op.input_plane();
      for (int64_t tap = 0; tap < op.taps(); ++tap) {
        const int64_t source = tap_source(op, p / op.columns, p % op.columns, tap);
        if (source < 0) continue;
        for (int64_t c = 0; c < channels; ++c) {
          sum += load(weight + c * op.taps() + tap) * load(input + c * op.input_plane() + source);
        }
      }
      if (op.bias != nullptr) sum += load(static_cast<const T*>(op.bias) + o);
    }
    store(static_cast<T*>(op.output) + i, sum);
  }
};

// One thread per input value, which gathers what flows back to it.
template <typename T>
struct InputGradient {
  MaskedConv op;

  VD_HD void operator()(int64_t i) const {
    const int64_t pixel = i % op.input_plane(), c = i / op.input_plane() % op.channels;
    const int64_t n = i / op.input_plane() / op.channels;
    const int64_t channels = op.group_channels(), outputs = op.group_outputs(), plane = op.output_plane();
    const int64_t first = c / channels * outputs;
    const T* weight = static_cast<const T*>(op.weight) + (first * channels + c % channels) * op.taps();
    const T* grads = static_cast<const T*>(op.grad_output) + (n * op.outputs + first) * plane;
    T sum = 0;
    for (int64_t tap = 0; tap < op.taps(); ++tap) {
      const int64_t target = tap_target(op, pixel / op.width, pixel % op.width, tap);
      if (target < 0 || !is_active(op, n * plane + target)) continue;
      for (int64_t o = 0; o < outputs; ++o) sum += weight[o * channels * op.taps() + tap] * grads[o * plane + target];
    }
    static_cast<T*>(op.grad_input)[i] = sum;
  }
};

// One warp per weight; its lanes share the positions.
template <typename T>
struct WeightGradient {
  MaskedConv op;

  VD_HD void operator()(const Warp& warp, int64_t i) const {
    const int64_t tap = i % op.taps(), o = i / op.taps() / op.group_channels(), plane = op.output_plane();
    const int64_t c = o / op.group_outputs() * op.group_channels() + i / op.taps() % op.group_channels();
    T sum = 0;
    for (int64_t j = warp.lane; j < op.batch * plane; j += Warp::kLanes) {
      if (!is_active(op, j)) continue;
      const int64_t n = j / plane, p = j % plane, source = tap_source(op, p / op.columns, p % op.columns, tap);
      if (source < 0) continue;
      sum += static_cast<const T*>(op.grad_output)[(n * op.outputs + o) * plane + p] *
             static_cast<const T*>(op.input)[(n * op.channels + c) * op.input_plane() + source];
    }
    sum = warp.sum(sum);
    if (warp.lane == 0) static_cast<T*>(op.grad_weight)[i] = sum;
  }
};

template <typename T>
struct BiasGradient {
  MaskedConv op;

  VD_HD void operator()(const Warp& warp, int64_t o) const {
    const int64_t plane = op.output_plane();
    T sum = 0;
    for (int64_t j = warp.lane; j < op.batch * plane; j += Warp::kLanes) {
      if (is_active(op, j)) {
        sum += static_cast<const T*>(op.grad_output)[(j / plane * op.outputs + o) * plane + j % plane];
      }
    }
    sum = warp.sum(sum);
    if (warp.lane == 0) static_cast<T*>(op.grad_bias)[o] = sum;
  }
};

template <typename T>
void launch_forward(const MaskedConv& op, void* stream) {
  const int64_t elements = op.batch * op.outputs * op.output_plane();
  if (op.group_outputs() <= kNarrow) return launch_items(kOp, NarrowForward<T>{op}, elements, stream);
  launch_zero(kOp, op.output, elements * int64_t(sizeof(T)), stream);
  const Forward<T> forward = {op};
  launch_blocks(kOp, forward, forward.blocks(), stream);
}

template <typename T>
void launch_backward(const MaskedConv& op, void* stream) {
  launch_items(kOp, InputGradient<T>{op}, op.batch * op.channels * op.input_plane(), stream);
  launch_warps(kOp, WeightGradient<T>{op}, op.outputs * op.group_channels() * op.taps(), stream);
  launch_warps(kOp, BiasGradient<T>{op}, op.outputs, stream);
}

}  // namespace

void masked_conv_cuda_forward(const MaskedConv& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_forward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_forward<double>(op, stream);
  if (dtype == VD_FLOAT16) launch_forward<Half>(op, stream);
  if (dtype == VD_BFLOAT16) launch_forward<BFloat16>(op, stream);
}

void masked_conv_cuda_backward(const MaskedConv& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_backward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_backward<double>(op, stream);
}

}  // namespace visdeploy
