#include "deform_conv/cuda_kernel.h"

#include "visdeploy/c_api.h"
#include "visdeploy/launch.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "deform_conv";
constexpr int kThreads = 256;
constexpr int kEdge = 16;  // threads along each edge of a tile
constexpr int kGap = 4;    // keeps threads that write down a column of a tile on different banks, and rows on 16 bytes

// Channels come in pieces that belong to one weight group and one offset group.
int64_t piece_of(const DeformConv& op) {
  int64_t a = op.group_channels(), b = op.offset_channels();
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

VD_HD int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
VD_HD int at_most(int64_t left, int most) { return left < most ? static_cast<int>(left) : most; }

// The neighbours of one tap at neighbouring positions, in shared memory.
template <typename Real, int kPositions>
struct PointTile {
  int32_t index[4][kPositions];
  Real weight[4][kPositions];  // 0 outside the map, else with the mask
};

template <typename T>
VD_HD TapSample<Acc<T>> sample_at(const DeformConv& op, int64_t n, int64_t offset_group, int64_t tap,
                                  int64_t position) {
  const int64_t y = tap_origin(op, 0, position / op.out_width, tap / op.kernel[1]);
  const int64_t x = tap_origin(op, 1, position % op.out_width, tap % op.kernel[1]);
  return sample_tap<T>(op, op.mask_plane(n, offset_group, tap), static_cast<Acc<T>>(y), static_cast<Acc<T>>(x),
                       position);
}

// Positions from `left` on are outside the output; they sample nothing.
template <typename T, int kPositions>
VD_HD void find_point(const DeformConv& op, int64_t n, int64_t offset_group, int64_t tap, int64_t first, int i,
                      int left, PointTile<Acc<T>, kPositions>& points) {
  TapSample<Acc<T>> sample = {};
  if (i < left) sample = sample_at<T>(op, n, offset_group, tap, first + i);
  for (int k = 0; k < 4; ++k) {
    const bool inside = i < left && sample.found.index[k] >= 0;
    points.index[k][i] = inside ? sample.found.index[k] : -1;
    points.weight[k][i] = inside ? sample.mask * neighbour_weight(sample.found, k) : Acc<T>(0);
  }
}

template <typename T, int kPositions>
VD_HD Acc<T> sample_channel(const PointTile<Acc<T>, kPositions>& points, int i, const T* plane) {
  Acc<T> sum = 0;
  for (int k = 0; k < 4; ++k) {
    if (points.index[k][i] >= 0) sum += points.weight[k][i] * load(plane + points.index[k][i]);
  }
  return sum;
}

// Forward: a block computes kOutputs outputs of one group at kPositions positions, some channels of one tap at a time.
template <typename T, int kOutputs>
struct Forward {
  static constexpr int kThreads = visdeploy::kThreads;
  static constexpr int kPositions = 64, kDepth = 16;
  static constexpr int kOwnOutputs = kOutputs / kEdge, kOwnPositions = kPositions / kEdge;
  using Real = Acc<T>;

  struct alignas(16) Shared {
    Real columns[kDepth][kPositions];
    Real weights[kDepth][kOutputs + kGap];
    PointTile<Real, kPositions> points;
  };
  struct State {
    Real sums[kOwnOutputs][kOwnPositions];
  };

  DeformConv op;
  int64_t piece;

  // Where a block's work lies; `first`s are of output (within all groups) and position.
  struct Place {
    int64_t n, group, first_output, first_position;
    int outputs, positions;
  };

  VD_HD Place place(int64_t index) const {
    Place at;
    const int64_t output_tiles = parts_of(op.group_outputs(), kOutputs);
    const int64_t position_tiles = parts_of(op.positions(), kPositions);
    const int64_t output = index % output_tiles * kOutputs;
    index /= output_tiles;
    at.group = index % op.groups;
    index /= op.groups;
    at.first_position = index % position_tiles * kPositions;
    at.n = index / position_tiles;
    at.first_output = at.group * op.group_outputs() + output;
    at.outputs = at_most(op.group_outputs() - output, kOutputs);
    at.positions = at_most(op.positions() - at.first_position, kPositions);
    return at;
  }

  VD_HD void load_tiles(const Place& at, int64_t tap, int64_t channel, int depth, int thread, Shared& shared) const {
    const T* planes = static_cast<const T*>(op.input) + (at.n * op.channels + channel) * op.pixels();
    for (int j = thread; j < depth * kPositions; j += kThreads) {
      const int k = j / kPositions, i = j % kPositions;
      shared.columns[k][i] = sample_channel<T, kPositions>(shared.points, i, planes + k * op.pixels());
    }
    const int64_t column = (channel - at.group * op.group_channels()) * op.taps() + tap;
    const T* weights = static_cast<const T*>(op.weight) + at.first_output * op.group_channels() * op.taps() + column;
    for (int j = thread; j < depth * kOutputs; j += kThreads) {
      const int k = j % depth, o = j / depth;
      shared.weights[k][o] = o < at.outputs ? load(weights + (o * op.group_channels() + k) * op.taps()) : Real(0);
    }
  }

  static VD_HD void multiply(const Shared& shared, int depth, int thread, State& state) {
    const int first_output = thread / kEdge * kOwnOutputs, first_position = thread % kEdge * kOwnPositions;
    for (int k = 0; k < depth; ++k) {
      Real weights[kOwnOutputs], columns[kOwnPositions];
      for (int o = 0; o < kOwnOutputs; ++o) weights[o] = shared.weights[k][first_output + o];
      for (int i = 0; i < kOwnPositions; ++i) columns[i] = shared.columns[k][first_position + i];
      for (int o = 0; o < kOwnOutputs; ++o) {
        for (int i = 0; i < kOwnPositions; ++i) state.sums[o][i] += weights[o] * columns[i];
      }
    }
  }

  VD_HD void write(const Place& at, int thread, const State& state) const {
    for (int j = 0; j < kOwnOutputs; ++j) {
      const int o = thread / kEdge * kOwnOutputs + j;
      if (o >= at.outputs) return;
      const int64_t output = at.first_output + o;
      const Real bias = op.bias == nullptr ? Real(0) : load(static_cast<const T*>(op.bias) + output);
      T* row = static_cast<T*>(op.output) + (at.n * op.outputs + output) * op.positions() + at.first_position;
      for (int i = 0; i < kOwnPositions; ++i) {
        const int position = thread % kEdge * kOwnPositions + i;
        if (position < at.positions) store(row + position, state.sums[j][i] + bias);
      }
    }
  }

  VD_HD void operator()(Block<Forward>& block, int64_t index) const {
    const Place at = place(index);
    Shared& shared = block.shared;
    block.each([&](int, State& state) {
      for (auto& row : state.sums) {
        for (Real& sum : row) sum = 0;
      }
    });
    const int64_t first = at.group * op.group_channels(), last = first + op.group_channels();
    for (int64_t tap = 0; tap < op.taps(); ++tap) {
      for (int64_t begin = first; begin < last; begin += piece) {
        if (begin == first || begin % op.offset_channels() == 0) {
          block.each([&](int thread, State&) {
            if (thread >= kPositions) return;
            find_point<T, kPositions>(op, at.n, begin / op.offset_channels(), tap, at.first_position, thread,
                                      at.positions, shared.points);
          });
        }
        for (int64_t channel = begin; channel < begin + piece; channel += kDepth) {
          const int depth = at_most(begin + piece - channel, kDepth);
          block.each([&](int thread, State&) { load_tiles(at, tap, channel, depth, thread, shared); });
          block.each([&](int thread, State& state) { multiply(shared, depth, thread, state); });
        }
      }
    }
    block.each([&](int thread, State& state) { write(at, thread, state); });
  }
};

// Gradients of input, offset and mask: a block takes one tap of one offset group at kPositions positions, kChannels
// channels at a time. Four threads share a position, one for each neighbour.
template <typename T>
struct BackwardSamples {
  static constexpr int kThreads = visdeploy::kThreads;
  static constexpr int kPositions = kThreads / 4, kChannels = 32, kDepth = 16;
  static constexpr int kOwnChannels = kChannels / kEdge, kOwnPositions = kPositions / kEdge;

  struct alignas(16) Shared {
    T grads[kDepth][kPositions];  // of outputs
    T weights[kDepth][kChannels];
    T columns[kChannels][kPositions];  // gradients of the samples
    T dots[4][kPositions];
  };
  struct State {
    T sums[kOwnChannels][kOwnPositions];
    TapSample<T> sample;  // of the thread's position
    T dot;                // of its neighbour
  };

  DeformConv op;
  int64_t piece;

  struct Place {
    int64_t n, offset_group, tap, first_position;
    int positions;
  };

  VD_HD Place place(int64_t index) const {
    Place at;
    const int64_t position_tiles = parts_of(op.positions(), kPositions);
    at.first_position = index % position_tiles * kPositions;
    index /= position_tiles;
    at.tap = index % op.taps();
    index /= op.taps();
    at.offset_group = index % op.offset_groups;
    at.n = index / op.offset_groups;
    at.positions = at_most(op.positions() - at.first_position, kPositions);
    return at;
  }

  VD_HD void load_tiles(const Place& at, int64_t channel, int channels, int64_t output, int depth, int thread,
                        Shared& shared) const {
    const T* grads = static_cast<const T*>(op.grad_output) + (at.n * op.outputs + output) * op.positions();
    for (int j = thread; j < depth * kPositions; j += kThreads) {
      const int k = j / kPositions, i = j % kPositions;
      shared.grads[k][i] = i < at.positions ? grads[k * op.positions() + at.first_position + i] : T(0);
    }
    const int64_t row = op.group_channels() * op.taps();
    const T* weights = static_cast<const T*>(op.weight) + output * row + channel % op.group_channels() * op.taps();
    for (int j = thread; j < depth * kChannels; j += kThreads) {
      const int k = j / kChannels, c = j % kChannels;
      shared.weights[k][c] = c < channels ? weights[k * row + c * op.taps() + at.tap] : T(0);
    }
  }

  static VD_HD void multiply(const Shared& shared, int depth, int thread, State& state) {
    const int channel = thread / kEdge * kOwnChannels, position = thread % kEdge * kOwnPositions;
    for (int k = 0; k < depth; ++k) {
      for (int c = 0; c < kOwnChannels; ++c) {
        for (int i = 0; i < kOwnPositions; ++i) {
          state.sums[c][i] += shared.weights[k][channel + c] * shared.grads[k][position + i];
        }
      }
    }
  }

  // One thread's neighbour, for all channels whose sample gradients are there.
  VD_HD void spread(const Place& at, int64_t channel, int channels, int thread, const Shared& shared,
                    State& state) const {
    const int position = thread % kPositions, k = thread / kPositions;
    if (position >= at.positions || state.sample.found.index[k] < 0) return;
    const int64_t pixel = (at.n * op.channels + channel) * op.pixels() + state.sample.found.index[k];
    const T weight = state.sample.mask * neighbour_weight(state.sample.found, k);
    for (int c = 0; c < channels; ++c) {
      const T grad = shared.columns[c][position];
      state.dot += grad * static_cast<const T*>(op.input)[pixel + c * op.pixels()];
      atomic_add(static_cast<T*>(op.grad_input) + pixel + c * op.pixels(), weight * grad);
    }
  }

  VD_HD void write(const Place& at, int thread, const Shared& shared, const State& state) const {
    if (thread >= at.positions) return;
    const T dots[4] = {shared.dots[0][thread], shared.dots[1][thread], shared.dots[2][thread], shared.dots[3][thread]};
    const TapGradients<T> grad = tap_gradients(state.sample, dots);
    const int64_t plane = op.mask_plane(at.n, at.offset_group, at.tap), position = at.first_position + thread;
    static_cast<T*>(op.grad_offset)[2 * plane + position] = grad.offset_y;
    static_cast<T*>(op.grad_offset)[2 * plane + op.positions() + position] = grad.offset_x;
    if (op.grad_mask != nullptr) static_cast<T*>(op.grad_mask)[plane + position] = grad.mask;
  }

  VD_HD void operator()(Block<BackwardSamples>& block, int64_t index) const {
    const Place at = place(index);
    Shared& shared = block.shared;
    block.each([&](int thread, State& state) {
      const int position = thread % kPositions;
      if (position < at.positions) {
        state.sample = sample_at<T>(op, at.n, at.offset_group, at.tap, at.first_position + position);
      }
      state.dot = 0;
    });
    const int64_t first = at.offset_group * op.offset_channels(), last = first + op.offset_channels();
    for (int64_t begin = first; begin < last; begin += piece) {
      for (int64_t channel = begin; channel < begin + piece; channel += kChannels) {
        backward_channels(block, at, channel, at_most(begin + piece - channel, kChannels));
      }
    }
    block.each([&](int thread, State& state) { shared.dots[thread / kPositions][thread % kPositions] = state.dot; });
    block.each([&](int thread, State& state) { write(at, thread, shared, state); });
  }

  VD_HD void backward_channels(Block<BackwardSamples>& block, const Place& at, int64_t channel, int channels) const {
    Shared& shared = block.shared;
    block.each([&](int, State& state) {
      for (auto& row : state.sums) {
        for (T& sum : row) sum = 0;
      }
    });
    const int64_t first = channel / op.group_channels() * op.group_outputs(), last = first + op.group_outputs();
    for (int64_t output = first; output < last; output += kDepth) {
      const int depth = at_most(last - output, kDepth);
      block.each([&](int thread, State&) { load_tiles(at, channel, channels, output, depth, thread, shared); });
      block.each([&](int thread, State& state) { multiply(shared, depth, thread, state); });
    }
    block.each([&](int thread, State& state) {
      for (int c = 0; c < kOwnChannels; ++c) {
        for (int i = 0; i < kOwnPositions; ++i) {
          shared.columns[thread / kEdge * kOwnChannels + c][thread % kEdge * kOwnPositions + i] = state.sums[c][i];
        }
      }
    });
    block.each([&](int thread, State& state) { spread(at, channel, channels, thread, shared, state); });
  }
};

// Gradient of the weights: a block takes kOutputs outputs and kChannels channels of one tap over all positions.
template <typename T>
struct BackwardWeights {
  static constexpr int kThreads = visdeploy::kThreads;
  static constexpr int kOutputs = 64, kChannels = 32, kDepth = 32;
  static constexpr int kOwnOutputs = kOutputs / kEdge, kOwnChannels = kChannels / kEdge;

  struct alignas(16) Shared {
    // One column more than needed, so that threads along a row's positions write to different banks.
    T grads[kDepth][kOutputs + 1];
    T columns[kDepth][kChannels + 1];
    PointTile<T, kDepth> points;
  };
  struct State {
    T sums[kOwnOutputs][kOwnChannels];
  };

  DeformConv op;
  int64_t piece;

  struct Place {
    int64_t first_output, channel, tap;
    int outputs, channels;
  };

  VD_HD Place place(int64_t index) const {
    Place at;
    const int64_t output_tiles = parts_of(op.group_outputs(), kOutputs), channel_tiles = parts_of(piece, kChannels);
    const int64_t output = index % output_tiles * kOutputs;
    index /= output_tiles;
    at.tap = index % op.taps();
    index /= op.taps();
    const int64_t channel = index % channel_tiles * kChannels;
    at.channel = index / channel_tiles * piece + channel;
    at.channels = at_most(piece - channel, kChannels);
    at.first_output = at.channel / op.group_channels() * op.group_outputs() + output;
    at.outputs = at_most(op.group_outputs() - output, kOutputs);
    return at;
  }

  VD_HD void load_tiles(const Place& at, int64_t n, int64_t first, int depth, int thread, Shared& shared) const {
    const T* grads = static_cast<const T*>(op.grad_output) + (n * op.outputs + at.first_output) * op.positions();
    for (int j = thread; j < kDepth * kOutputs; j += kThreads) {
      const int i = j % kDepth, o = j / kDepth;
      shared.grads[i][o] = i < depth && o < at.outputs ? grads[o * op.positions() + first + i] : T(0);
    }
    const T* planes = static_cast<const T*>(op.input) + (n * op.channels + at.channel) * op.pixels();
    for (int j = thread; j < kDepth * kChannels; j += kThreads) {
      const int i = j % kDepth, c = j / kDepth;
      shared.columns[i][c] =
          c < at.channels ? sample_channel<T, kDepth>(shared.points, i, planes + c * op.pixels()) : T(0);
    }
  }

  static VD_HD void multiply(const Shared& shared, int thread, State& state) {
    for (int i = 0; i < kDepth; ++i) {
      for (int o = 0; o < kOwnOutputs; ++o) {
        for (int c = 0; c < kOwnChannels; ++c) {
          state.sums[o][c] +=
              shared.grads[i][thread / kEdge + o * kEdge] * shared.columns[i][thread % kEdge + c * kEdge];
        }
      }
    }
  }

  VD_HD void write(const Place& at, int thread, const State& state) const {
    for (int j = 0; j < kOwnOutputs * kOwnChannels; ++j) {
      const int o = thread / kEdge + j / kOwnChannels * kEdge, c = thread % kEdge + j % kOwnChannels * kEdge;
      if (o >= at.outputs || c >= at.channels) continue;
      const int64_t channel = at.channel % op.group_channels() + c;
      const int64_t row = (at.first_output + o) * op.group_channels() + channel;
      static_cast<T*>(op.grad_weight)[row * op.taps() + at.tap] = state.sums[j / kOwnChannels][j % kOwnChannels];
    }
  }

  VD_HD void operator()(Block<BackwardWeights>& block, int64_t index) const {
    const Place at = place(index);
    Shared& shared = block.shared;
    block.each([&](int, State& state) {
      for (auto& row : state.sums) {
        for (T& sum : row) sum = 0;
      }
    });
    for (int64_t n = 0; n < op.batch; ++n) {
      for (int64_t first = 0; first < op.positions(); first += kDepth) {
        const int depth = at_most(op.positions() - first, kDepth);
        block.each([&](int thread, State&) {
          if (thread >= kDepth) return;
          find_point<T, kDepth>(op, n, at.channel / op.offset_channels(), at.tap, first, thread, depth, shared.points);
        });
        block.each([&](int thread, State&) { load_tiles(at, n, first, depth, thread, shared); });
        block.each([&](int thread, State& state) { multiply(shared, thread, state); });
      }
    }
    block.each([&](int thread, State& state) { write(at, thread, state); });
  }
};

// Gradient of the bias: one warp per output.
template <typename T>
struct BackwardBias {
  DeformConv op;

  VD_HD void operator()(const Warp& warp, int64_t output) const {
    T sum = 0;
    for (int64_t n = 0; n < op.batch; ++n) {
      const T* grad = static_cast<const T*>(op.grad_output) + (n * op.outputs + output) * op.positions();
      for (int64_t i = warp.lane; i < op.positions(); i += Warp::kLanes) sum += grad[i];
    }
    sum = warp.sum(sum);
    if (warp.lane == 0) static_cast<T*>(op.grad_bias)[output] = sum;
  }
};

template <typename T, int kOutputs>
void launch_forward_tiles(const DeformConv& op, void* stream) {
  using Program = Forward<T, kOutputs>;
  const int64_t blocks =
      op.batch * parts_of(op.positions(), Program::kPositions) * op.groups * parts_of(op.group_outputs(), kOutputs);
  launch_blocks(kOp, Program{op, piece_of(op)}, blocks, stream);
}

// Small tiles where a group has few outputs, as large ones would mostly be idle.
template <typename T>
void launch_forward(const DeformConv& op, void* stream) {
  if (op.group_outputs() > 32) {
    launch_forward_tiles<T, 128>(op, stream);
  } else {
    launch_forward_tiles<T, 32>(op, stream);
  }
}

template <typename T>
void launch_backward(const DeformConv& op, void* stream) {
  const int64_t piece = piece_of(op);
  launch_zero(kOp, op.grad_input, op.batch * op.channels * op.pixels() * int64_t(sizeof(T)), stream);
  const int64_t tiles = parts_of(op.positions(), BackwardSamples<T>::kPositions);
  launch_blocks(kOp, BackwardSamples<T>{op, piece}, op.batch * op.offset_groups * op.taps() * tiles, stream);
  const int64_t outputs = parts_of(op.group_outputs(), BackwardWeights<T>::kOutputs);
  const int64_t channels = op.channels / piece * parts_of(piece, BackwardWeights<T>::kChannels);
  launch_blocks(kOp, BackwardWeights<T>{op, piece}, outputs * op.taps() * channels, stream);
  if (op.grad_bias != nullptr) launch_warps(kOp, BackwardBias<T>{op}, op.outputs, stream);
}

}  // namespace

void deform_conv_cuda_forward(const DeformConv& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_forward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_forward<double>(op, stream);
  if (dtype == VD_FLOAT16) launch_forward<Half>(op, stream);
  if (dtype == VD_BFLOAT16) launch_forward<BFloat16>(op, stream);
}

void deform_conv_cuda_backward(const DeformConv& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_backward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_backward<double>(op, stream);
}

}  // namespace visdeploy
