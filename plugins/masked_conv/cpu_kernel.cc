// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "masked_conv/cpu_kernel.h"

#include <utility>

#include "core/gemm_tile.h"

namespace visdeploy {
namespace {

constexpr int kPieces = 16;     // taps whose rows are looked up at a time
constexpr int kSumSteps = 256;  // positions whose gradients are summed up before they are added to the others

constexpr int kPanelsAtOnce = 4;             // that take turns on the same rows
constexpr int64_t kPanelBytes = 256 * 1024;  // of a panel at a time, to leave room in the L2 cache

template <typename T>
constexpr int64_t kPanelSums = int64_t(kMaskedConvChunk) * kPanelWidth<Acc<T>>;

VD_HD int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <typename T>
Panels<Acc<T>> panels_of(const MaskedConvFilter& filter) {
  return {filter.outputs, filter.depth * filter.taps};
}

template <int kStep, typename T, int... kLane>
VD_HD void swap_halves(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, kLane...>) {
  constexpr int kAll = kLanes<T>;
  const Vector<T> first = __builtin_shufflevector(a, b, (kLane & kStep ? kAll + kLane - kStep : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kStep ? kAll + kLane : kLane + kStep)...);
  a = first;
}

// Turns a square of values round: exchanges its upper right and lower left quarters, then those of each quarter.
template <int kStep, typename T>
VD_HD void transpose(Vector<T> (&square)[kLanes<T>]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) {
    if ((i & kStep) == 0) {
      swap_halves<kStep, T>(square[i], square[i + kStep], std::make_integer_sequence<int, kLanes<T>>());
    }
  }
  if constexpr (kStep > 1) transpose<kStep / 2, T>(square);
}

// kLanes channels of kLanes neighbouring pixels.
template <typename T>
VD_HD void gather_square(const T* source, int64_t plane, int64_t channels, Acc<T>* row) {
  Vector<Acc<T>> square[kLanes<Acc<T>>];
#pragma GCC unroll 16
  for (int c = 0; c < kLanes<Acc<T>>; ++c) {
    Acc<T> values[kLanes<Acc<T>>];
    for (int i = 0; i < kLanes<Acc<T>>; ++i) values[i] = load(source + c * plane + i);
    square[c] = load_vector(values);
  }
  transpose<kLanes<Acc<T>> / 2, Acc<T>>(square);
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<Acc<T>>; ++i) store_vector(row + i * channels, square[i]);
}

template <typename T>
void gather_rows(const void* planes, int64_t plane, int64_t channels, const int64_t* offsets, int64_t begin,
                 int64_t end, void* rows) {
  constexpr int kBlock = kLanes<Acc<T>>;
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = least(kBlock, end - first);
    const T* source = static_cast<const T*>(planes);
    Acc<T>* row = static_cast<Acc<T>*>(rows) + (first + 1) * channels;
    int64_t c = 0;
    if (count == kBlock && offsets[first + kBlock - 1] - offsets[first] == kBlock - 1) {
      for (; c + kBlock <= channels; c += kBlock)
        gather_square(source + c * plane + offsets[first], plane, channels, row + c);
    }
    for (; c < channels; ++c) {
      for (int64_t i = 0; i < count; ++i) row[i * channels + c] = load(source + c * plane + offsets[first + i]);
    }
  }
}

template <typename T>
int64_t panels(const MaskedConvFilter& filter) {
  return panels_of<T>(filter).count();
}

template <typename T>
int64_t packed_size(const MaskedConvFilter& filter) {
  return filter.groups * panels_of<T>(filter).size();
}

template <typename T>
void pack(const MaskedConvFilter& filter, const void* weight, int64_t begin, int64_t end, void* packed) {
  const Panels<Acc<T>> shape = panels_of<T>(filter);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t group = i / shape.count(), panel = i % shape.count();
    pack_weights(static_cast<const T*>(weight) + group * filter.outputs * shape.depth, filter.outputs, filter.depth,
                 filter.taps, panel, panel + 1, static_cast<Acc<T>*>(packed) + group * shape.size());
  }
}

// One panel of one group at work on a chunk of positions.
template <typename T>
struct PanelWork {
  const MaskedConvProduct& product;
  int64_t begin, end;         // positions
  int64_t channel, depth_at;  // first output channel; where the group's channels begin in a row
  int64_t outputs;            // channels that count
  int vectors;
  const Acc<T>* panel;
};

// Every row of sums begins as the bias.
template <typename T>
VD_HD void start_sums(const PanelWork<T>& work, Acc<T>* sums) {
  constexpr int64_t kWidth = kPanelWidth<Acc<T>>;
  for (int64_t o = 0; o < kWidth; ++o) {
    const bool biased = work.product.bias != nullptr && o < work.outputs;
    sums[o] = biased ? load(static_cast<const T*>(work.product.bias) + work.channel + o) : Acc<T>(0);
  }
  const int64_t rows = (work.end - work.begin + kTileRows - 1) / kTileRows * kTileRows;
  for (int64_t i = kWidth; i < rows * kWidth; ++i) sums[i] = sums[i - kWidth];
}

// A part of the depth: taps [tap, tap + taps) and of each the channels [channel, channel + channels).
struct DepthPart {
  int64_t tap, taps, channel, channels;
};

// Adds one part of the depth to the sums of every position.
template <typename T>
VD_HD void multiply_part(const PanelWork<T>& work, const DepthPart& part, Acc<T>* sums) {
  constexpr int64_t kWidth = kPanelWidth<Acc<T>>;
  const MaskedConvProduct& product = work.product;
  const MaskedConvFilter& filter = product.filter;
  const Acc<T>* base = static_cast<const Acc<T>*>(product.rows) + work.depth_at + part.channel;
  const Acc<T>* panel = work.panel + (part.tap * filter.depth + part.channel) * work.vectors * kLanes<Acc<T>>;
  const Acc<T>* rows[kPieces * kTileRows];
  for (int64_t position = work.begin; position < work.end; position += kTileRows, sums += kTileRows * kWidth) {
    for (int m = 0; m < kTileRows; ++m) {
      const int64_t* entry = product.table + (position + m) * filter.taps + part.tap;
      const bool there = position + m < work.end;
      for (int64_t t = 0; t < part.taps; ++t)
        rows[t * kTileRows + m] = base + (there ? entry[t] : 0) * product.channels;
    }
    multiply_panel(work.vectors, rows, part.taps, part.channels, panel, sums, kWidth);
  }
}

// Part by part of the depth, such that the part of a panel and the pixels that the positions read through few taps stay
// in the L2 cache from panel to panel.
template <typename T>
VD_HD void multiply_chunk(const PanelWork<T>* works, int64_t count, Acc<T>* sums) {
  constexpr int64_t kDepth = kPanelBytes / static_cast<int64_t>(sizeof(Acc<T>)) / kPanelWidth<Acc<T>>;
  const MaskedConvFilter& filter = works[0].product.filter;
  const int64_t taps = filter.depth >= kDepth ? 1 : least(kPieces, kDepth / filter.depth);
  for (int64_t tap = 0; tap < filter.taps; tap += taps) {
    for (int64_t channel = 0; channel < filter.depth; channel += kDepth) {
      const DepthPart part = {tap, least(taps, filter.taps - tap), channel, least(kDepth, filter.depth - channel)};
      for (int64_t i = 0; i < count; ++i) multiply_part(works[i], part, sums + i * kPanelSums<T>);
    }
  }
}

template <typename T>
VD_HD void multiply_depthwise(const PanelWork<T>& work, Acc<T>* sums) {
  const MaskedConvProduct& product = work.product;
  const Acc<T>* base = static_cast<const Acc<T>*>(product.rows) + work.channel;
  for (int64_t i = work.begin; i < work.end; ++i, sums += kPanelWidth<Acc<T>>) {
    const int64_t* entry = product.table + i * product.filter.taps;
    for (int v = 0; v < work.vectors; ++v) {
      const int64_t at = v * kLanes<Acc<T>>;
      Vector<Acc<T>> sum = load_vector(sums + at);
      for (int64_t tap = 0; tap < product.filter.taps; ++tap) {
        sum += load_vector(base + entry[tap] * product.channels + at) *
               load_vector(work.panel + tap * work.vectors * kLanes<Acc<T>> + at);
      }
      store_vector(sums + at, sum);
    }
  }
}

// Zeros, then the sums at their places.
template <typename T>
VD_HD void write_channel(const PanelWork<T>& work, int64_t channel, const int64_t* offsets, const Acc<T>* sums) {
  const MaskedConvProduct& product = work.product;
  const int64_t all = product.filter.groups * product.filter.outputs, plane = product.plane;
  T* output = static_cast<T*>(product.output) + channel * plane;
  const int64_t to = work.end == product.positions ? product.batch * plane : product.where[work.end];
  int64_t from = work.begin == 0 ? 0 : product.where[work.begin];
  while (from < to) {
    const int64_t n = from / plane, stop = least(to, (n + 1) * plane);
    __builtin_memset(output + n * all * plane + from % plane, 0, static_cast<size_t>(stop - from) * sizeof(T));
    from = stop;
  }
  for (int64_t i = 0; i < work.end - work.begin; ++i) store(output + offsets[i], sums[i * kPanelWidth<Acc<T>>]);
}

template <typename T>
VD_HD PanelWork<T> panel_work(const MaskedConvProduct& product, int64_t begin, int64_t end, int64_t index) {
  const MaskedConvFilter& filter = product.filter;
  const Panels<Acc<T>> shape = panels_of<T>(filter);
  const int64_t group = index / shape.count(), panel = index % shape.count(), column = panel * kPanelWidth<Acc<T>>;
  const int64_t outputs = least(kPanelWidth<Acc<T>>, filter.outputs - column);
  const Acc<T>* packed = static_cast<const Acc<T>*>(product.packed) + group * shape.size() + shape.start(panel);
  return {product, begin, end, group * filter.outputs + column, group * filter.depth, outputs, shape.vectors(panel),
          packed};
}

template <typename T>
void multiply(const MaskedConvProduct& product, int64_t begin, int64_t end, int64_t first, int64_t last) {
  alignas(kTileAlignment) Acc<T> sums[kPanelsAtOnce * kPanelSums<T>];
  const int64_t all = product.filter.groups * product.filter.outputs;
  int64_t offsets[kMaskedConvChunk];
  for (int64_t i = begin; i < end; ++i) {
    const int64_t n = product.where[i] / product.plane;
    offsets[i - begin] = n * all * product.plane + product.where[i] % product.plane;
  }
  for (; first < last; first += kPanelsAtOnce) {
    const int64_t count = least(kPanelsAtOnce, last - first);
    const auto work = [&](int64_t i) { return panel_work<T>(product, begin, end, first + least(i, count - 1)); };
    const PanelWork<T> works[kPanelsAtOnce] = {work(0), work(1), work(2), work(3)};
    for (int64_t i = 0; i < count; ++i) start_sums(works[i], sums + i * kPanelSums<T>);
    if (product.filter.depthwise) {
      for (int64_t i = 0; i < count; ++i) multiply_depthwise(works[i], sums + i * kPanelSums<T>);
    } else {
      multiply_chunk(works, count, sums);
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t o = 0; o < works[i].outputs; ++o) {
        write_channel(works[i], works[i].channel + o, offsets, sums + i * kPanelSums<T> + o);
      }
    }
  }
}

template <typename T>
void swap_channels(const MaskedConv& op, int64_t begin, int64_t end, void* swapped) {
  const int64_t outputs = op.group_outputs(), channels = op.group_channels(), taps = op.taps();
  for (int64_t group = begin; group < end; ++group) {
    const T* from = static_cast<const T*>(op.weight) + group * outputs * channels * taps;
    T* to = static_cast<T*>(swapped) + group * outputs * channels * taps;
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t t = 0; t < taps; ++t) to[(c * outputs + o) * taps + t] = from[(o * channels + c) * taps + t];
      }
    }
  }
}

template <typename T>
void pack_grads(const MaskedConv& op, const int64_t* offsets, int64_t positions, int64_t begin, int64_t end,
                void* grads) {
  const Panels<T> shape = {op.group_outputs(), positions};
  for (int64_t i = begin; i < end; ++i) {
    const int64_t group = i / shape.count(), panel = i % shape.count(), first = panel * kPanelWidth<T>;
    const int64_t width = shape.vectors(panel) * kLanes<T>, filled = least(width, op.group_outputs() - first);
    const T* planes = static_cast<const T*>(op.grad_output) + (group * op.group_outputs() + first) * op.output_plane();
    T* row = static_cast<T*>(grads) + group * shape.size() + shape.start(panel);
    for (int64_t p = 0; p < positions; ++p, row += width) {
      for (int64_t o = 0; o < filled; ++o) row[o] = planes[offsets[p] + o * op.output_plane()];
      for (int64_t o = filled; o < width; ++o) row[o] = T(0);
    }
  }
}

int64_t weight_blocks(const MaskedConv& op) { return (op.group_channels() + kTileRows - 1) / kTileRows; }

// What kTileRows input channels, from `channel` of the group on, hold where a tap sees them from positions
// [from, from + count).
template <typename T>
VD_HD void gather_columns(const MaskedConvWeightSums& work, int64_t group, int64_t channel, int64_t tap, int64_t from,
                          int64_t count, T* columns) {
  const MaskedConv& op = *work.op;
  for (int m = 0; m < kTileRows; ++m) {
    const bool there = channel + m < op.group_channels();
    const T* plane = static_cast<const T*>(op.input) + (group * op.group_channels() + channel + m) * op.input_plane();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t source = work.source[(from + i) * op.taps() + tap];
      columns[m * kSumSteps + i] = there && source >= 0 ? plane[source] : T(0);
    }
  }
}

template <typename T>
VD_HD void sum_block(const MaskedConvWeightSums& work, int64_t group, int64_t channel, int64_t tap) {
  const MaskedConv& op = *work.op;
  const Panels<T> shape = {op.group_outputs(), work.positions};
  const T* grads = static_cast<const T*>(work.grads) + group * shape.size();
  const int64_t filled = least(kTileRows, op.group_channels() - channel), step = op.group_channels() * op.taps();
  T* result =
      static_cast<T*>(op.grad_weight) + (group * op.group_outputs() * op.group_channels() + channel) * op.taps();
  T columns[kTileRows * kSumSteps];
  const T* rows[kTileRows];
  for (int m = 0; m < kTileRows; ++m) rows[m] = columns + m * kSumSteps;
  for (int64_t o = 0; o < op.group_outputs(); ++o) {
    for (int64_t m = 0; m < filled; ++m) result[o * step + m * op.taps() + tap] = T(0);
  }
  for (int64_t from = 0; from < work.positions; from += kSumSteps) {
    const int64_t count = least(kSumSteps, work.positions - from);
    gather_columns(work, group, channel, tap, from, count, columns);
    for (int64_t panel = 0; panel < shape.count(); ++panel) {
      alignas(kTileAlignment) T sums[kTileRows * kPanelWidth<T>] = {};
      const int vectors = shape.vectors(panel);
      const int64_t first = panel * kPanelWidth<T>, wide = least(vectors * kLanes<T>, op.group_outputs() - first);
      multiply_panel(vectors, rows, 1, count, grads + shape.start(panel) + from * vectors * kLanes<T>, sums,
                     kPanelWidth<T>);
      for (int64_t o = 0; o < wide; ++o) {
        for (int64_t m = 0; m < filled; ++m) {
          result[(first + o) * step + m * op.taps() + tap] += sums[m * kPanelWidth<T> + o];
        }
      }
    }
  }
}

template <typename T>
void sum_weights(const MaskedConvWeightSums& work, int64_t begin, int64_t end) {
  const int64_t blocks = weight_blocks(*work.op), taps = work.op->taps();
  for (int64_t i = begin; i < end; ++i) {
    sum_block<T>(work, i / blocks / taps, i % blocks * kTileRows, i / blocks % taps);
  }
}

template <typename T>
void sum_bias(const MaskedConvWeightSums& work, int64_t begin, int64_t end) {
  const MaskedConv& op = *work.op;
  const Panels<T> shape = {op.group_outputs(), work.positions};
  for (int64_t i = begin; i < end; ++i) {
    const int64_t group = i / shape.count(), panel = i % shape.count(), first = panel * kPanelWidth<T>;
    const int64_t width = shape.vectors(panel) * kLanes<T>;
    const T* row = static_cast<const T*>(work.grads) + group * shape.size() + shape.start(panel);
    T total[kPanelWidth<T>] = {};
    for (int64_t from = 0; from < work.positions; from += kSumSteps) {
      T sums[kPanelWidth<T>] = {};
      const int64_t stop = least(from + kSumSteps, work.positions);
      for (int64_t p = from; p < stop; ++p, row += width) {
        for (int64_t o = 0; o < width; ++o) sums[o] += row[o];
      }
      for (int64_t o = 0; o < width; ++o) total[o] += sums[o];
    }
    T* result = static_cast<T*>(op.grad_bias) + group * op.group_outputs() + first;
    for (int64_t o = 0; o < least(width, op.group_outputs() - first); ++o) result[o] = total[o];
  }
}

}  // namespace

extern const MaskedConvCpuKernels VD_ISA_TABLE;
const MaskedConvCpuKernels VD_ISA_TABLE = {
    {nullptr, gather_rows<float>, gather_rows<double>, gather_rows<Half>, gather_rows<BFloat16>},
    {nullptr, panels<float>, panels<double>, panels<Half>, panels<BFloat16>},
    {nullptr, packed_size<float>, packed_size<double>, packed_size<Half>, packed_size<BFloat16>},
    {nullptr, pack<float>, pack<double>, pack<Half>, pack<BFloat16>},
    {nullptr, multiply<float>, multiply<double>, multiply<Half>, multiply<BFloat16>},
    {nullptr, swap_channels<float>, swap_channels<double>, nullptr, nullptr},
    {nullptr, pack_grads<float>, pack_grads<double>, nullptr, nullptr},
    {nullptr, sum_weights<float>, sum_weights<double>, nullptr, nullptr},
    {nullptr, sum_bias<float>, sum_bias<double>, nullptr, nullptr},
    weight_blocks,
    kPanelWidth<float>,
};

}  // namespace visdeploy
