// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "masked_conv/cpu_kernel.h"

#include "core/gemm_tile.h"

namespace visdeploy {
namespace {

constexpr int kPieces = 16;       // taps whose rows are looked up at a time
constexpr int kSumSteps = 256;    // positions whose gradients are summed up before they are added to the others
constexpr int kGatherBlock = 16;  // pixels that are turned from planes into rows at a time

VD_HD int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <typename T>
Panels<Acc<T>> panels_of(const MaskedConvFilter& filter) {
  return {filter.outputs, filter.depth * filter.taps};
}

template <typename T>
void gather_rows(const void* planes, int64_t plane, int64_t channels, const int64_t* offsets, int64_t begin,
                 int64_t end, void* rows) {
  for (int64_t first = begin; first < end; first += kGatherBlock) {
    const int64_t count = least(kGatherBlock, end - first);
    const T* source = static_cast<const T*>(planes);
    Acc<T>* row = static_cast<Acc<T>*>(rows) + (first + 1) * channels;
    for (int64_t c = 0; c < channels; ++c, source += plane, ++row) {
      for (int64_t i = 0; i < count; ++i) row[i * channels] = load(source + offsets[first + i]);
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

// The rows of one tile for taps [tap, tap + count); rows that are too few are zeros.
template <typename T>
VD_HD void find_rows(const PanelWork<T>& work, int64_t position, int64_t tap, int64_t count, const Acc<T>** rows) {
  const MaskedConvProduct& product = work.product;
  const Acc<T>* base = static_cast<const Acc<T>*>(product.rows) + work.depth_at;
  for (int m = 0; m < kTileRows; ++m) {
    const int64_t* entry = product.table + (position + m) * product.filter.taps + tap;
    const bool there = position + m < work.end;
    for (int64_t t = 0; t < count; ++t) rows[t * kTileRows + m] = base + (there ? entry[t] : 0) * product.channels;
  }
}

template <typename T>
VD_HD void multiply_chunk(const PanelWork<T>& work, Acc<T>* sums) {
  const MaskedConvFilter& filter = work.product.filter;
  const Acc<T>* rows[kPieces * kTileRows];
  for (int64_t tap = 0; tap < filter.taps; tap += kPieces) {
    const int64_t count = least(kPieces, filter.taps - tap);
    const Acc<T>* part = work.panel + tap * filter.depth * work.vectors * kLanes<Acc<T>>;
    for (int64_t position = work.begin; position < work.end; position += kTileRows) {
      find_rows(work, position, tap, count, rows);
      multiply_panel(work.vectors, rows, count, filter.depth, part,
                     sums + (position - work.begin) * kPanelWidth<Acc<T>>, kPanelWidth<Acc<T>>);
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
void multiply(const MaskedConvProduct& product, int64_t begin, int64_t end, int64_t first, int64_t last) {
  alignas(kTileAlignment) Acc<T> sums[kMaskedConvChunk * kPanelWidth<Acc<T>>];
  const MaskedConvFilter& filter = product.filter;
  const Panels<Acc<T>> shape = panels_of<T>(filter);
  const int64_t all = filter.groups * filter.outputs;
  int64_t offsets[kMaskedConvChunk];
  for (int64_t i = begin; i < end; ++i) {
    const int64_t n = product.where[i] / product.plane;
    offsets[i - begin] = n * all * product.plane + product.where[i] % product.plane;
  }
  for (int64_t i = first; i < last; ++i) {
    const int64_t group = i / shape.count(), panel = i % shape.count(), column = panel * kPanelWidth<Acc<T>>;
    const PanelWork<T> work = {product,
                               begin,
                               end,
                               group * filter.outputs + column,
                               group * filter.depth,
                               least(kPanelWidth<Acc<T>>, filter.outputs - column),
                               shape.vectors(panel),
                               static_cast<const Acc<T>*>(product.packed) + group * shape.size() + shape.start(panel)};
    const int64_t used = (end - begin + kTileRows - 1) / kTileRows * kTileRows;
    for (int64_t o = 0; o < kPanelWidth<Acc<T>>; ++o) {
      const bool biased = product.bias != nullptr && o < work.outputs;
      const Acc<T> start = biased ? load(static_cast<const T*>(product.bias) + work.channel + o) : Acc<T>(0);
      for (int64_t row = 0; row < used; ++row) sums[row * kPanelWidth<Acc<T>> + o] = start;
    }
    filter.depthwise ? multiply_depthwise(work, sums) : multiply_chunk(work, sums);
    for (int64_t o = 0; o < work.outputs; ++o) write_channel(work, work.channel + o, offsets, sums + o);
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
