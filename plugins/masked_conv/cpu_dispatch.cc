// Chooses the kernels for this machine, lists what is active and shares out the work.

#include <algorithm>
#include <optional>
#include <vector>

#include "core/cpu_isa.h"
#include "masked_conv/cpu_kernel.h"
#include "masked_conv/cpu_run.h"

namespace visdeploy {
namespace {

constexpr int64_t kPixelBlock = 16;   // float32 values of a cache line
constexpr int64_t kEnoughItems = 64;  // shares for threads, where chunks of positions alone are too few
// Packed weights of a share: one chunk after the other reads them, and they stay in the L2 cache.
constexpr int64_t kShareBytes = 1280 * 1024;

AlignedBuffer allocate(int64_t elements, int dtype) { return AlignedBuffer(elements * (dtype == VD_FLOAT64 ? 8 : 4)); }

int64_t worth(int64_t elements) { return std::max<int64_t>(elements, 1); }

bool is_depthwise(const MaskedConv& op) { return op.group_channels() == 1 && op.group_outputs() == 1; }

MaskedConvFilter filter_of(const MaskedConv& op) {
  if (is_depthwise(op)) return {1, op.outputs, 1, op.taps(), true};
  return {op.groups, op.group_outputs(), op.group_channels(), op.taps(), false};
}

// The active positions and the pixels that they read.
struct Reach {
  std::vector<int64_t> positions;  // n * output_plane + p, ascending
  std::vector<int64_t> pixels;     // n * input_plane + p, ascending
  std::vector<int64_t> table;      // [positions, taps], 1 + index into pixels, 0 in the padding
};

// The pixels of the input plane that an output position reads, -1 in the padding: tap_source of all taps, without a
// division for each.
int64_t* list_sources(const MaskedConv& op, int64_t row, int64_t column, int64_t first, int64_t* entry) {
  const int64_t top = row * op.stride[0] - op.padding[0], left = column * op.stride[1] - op.padding[1];
  for (int64_t i = 0; i < op.kernel[0]; ++i) {
    const int64_t y = top + i * op.dilation[0];
    const bool there = y >= 0 && y < op.height;
    for (int64_t j = 0; j < op.kernel[1]; ++j) {
      const int64_t x = left + j * op.dilation[1];
      *entry++ = there && x >= 0 && x < op.width ? first + y * op.width + x : -1;
    }
  }
  return entry;
}

void list_active(const MaskedConv& op, Reach& reach) {
  for (int64_t i = 0; i < op.batch * op.output_plane(); ++i) {
    if (is_active(op, i)) reach.positions.push_back(i);
  }
}

// Lists pixels by whole blocks of neighbours: fetching a cache line of which one pixel is read costs as much as
// fetching it all, and blocks are turned into rows with vectors.
template <int64_t kBlock>
Reach reach_of(const MaskedConv& op) {
  Reach reach;
  const int64_t taps = op.taps(), plane = op.output_plane(), blocks = (op.input_plane() + kBlock - 1) / kBlock;
  list_active(op, reach);
  reach.table.resize(reach.positions.size() * static_cast<size_t>(taps));
  std::vector<int64_t> rank(static_cast<size_t>(op.batch * blocks), -1);  // of a block's first pixel; -1 if not read
  int64_t* entry = reach.table.data();
  for (const int64_t position : reach.positions) {
    const int64_t n = position / plane, place = position % plane;
    int64_t* const end = list_sources(op, place / op.columns, place % op.columns, n * blocks * kBlock, entry);
    for (; entry < end; ++entry) {
      if (*entry >= 0) rank[static_cast<size_t>(*entry / kBlock)] = 0;
    }
  }
  for (int64_t i = 0; i < op.batch * blocks; ++i) {
    if (rank[static_cast<size_t>(i)] < 0) continue;
    rank[static_cast<size_t>(i)] = static_cast<int64_t>(reach.pixels.size());
    const int64_t first = i % blocks * kBlock, last = std::min(first + kBlock, op.input_plane());
    for (int64_t p = first; p < last; ++p) reach.pixels.push_back(i / blocks * op.input_plane() + p);
  }
  for (int64_t& each : reach.table) {
    each = each < 0 ? 0 : 1 + rank[static_cast<size_t>(each / kBlock)] + each % kBlock;
  }
  return reach;
}

// Where channel 0 of each listed position lies in a tensor [batch, channels, plane].
std::vector<int64_t> offsets_of(const std::vector<int64_t>& listed, int64_t channels, int64_t plane) {
  std::vector<int64_t> offsets(listed.size());
  std::transform(listed.begin(), listed.end(), offsets.begin(),
                 [&](int64_t each) { return each / plane * channels * plane + each % plane; });
  return offsets;
}

// The listed pixels of planes as rows of channels, after a row of zeros.
AlignedBuffer rows_of(const void* planes, int64_t plane, int64_t channels, const std::vector<int64_t>& listed,
                      int dtype, const ParallelRun& run) {
  const MaskedConvCpuKernels& kernels = masked_conv_cpu();
  const auto count = static_cast<int64_t>(listed.size());
  AlignedBuffer rows = allocate((count + 1) * channels + kernels.row_padding, dtype);
  const size_t size = dtype == VD_FLOAT64 ? 8 : 4;
  std::fill_n(static_cast<char*>(rows.get()), static_cast<size_t>(channels) * size, 0);
  std::fill_n(static_cast<char*>(rows.get()) + static_cast<size_t>((count + 1) * channels) * size,
              static_cast<size_t>(kernels.row_padding) * size, 0);
  const std::vector<int64_t> offsets = offsets_of(listed, channels, plane);
  constexpr int64_t kBlock = 64;
  run((count + kBlock - 1) / kBlock, worth(kBlock * channels), [&](int64_t begin, int64_t end) {
    kernels.gather_rows[dtype](planes, plane, channels, offsets.data(), begin * kBlock, std::min(end * kBlock, count),
                               rows.get());
  });
  return rows;
}

AlignedBuffer pack(const MaskedConvFilter& filter, const void* weight, int dtype, const ParallelRun& run) {
  const MaskedConvCpuKernels& kernels = masked_conv_cpu();
  AlignedBuffer packed = allocate(kernels.packed_size[dtype](filter), dtype);
  const int64_t panels = kernels.panels[dtype](filter);
  run(filter.groups * panels, worth(4 * filter.outputs * filter.depth * filter.taps / panels),
      [&](int64_t begin, int64_t end) { kernels.pack[dtype](filter, weight, begin, end, packed.get()); });
  return packed;
}

void multiply(const MaskedConvProduct& product, int dtype, const ParallelRun& run) {
  if (product.batch == 0) return;  // and there need be no output to point into
  const MaskedConvCpuKernels& kernels = masked_conv_cpu();
  const MaskedConvFilter& filter = product.filter;
  const int64_t panels = filter.groups * kernels.panels[dtype](filter);
  const int64_t chunks = std::max<int64_t>((product.positions + kMaskedConvChunk - 1) / kMaskedConvChunk, 1);
  const int64_t bytes = kernels.packed_size[dtype](filter) * (dtype == VD_FLOAT64 ? 8 : 4);
  const int64_t shares =
      std::clamp<int64_t>(std::max(kEnoughItems / chunks, (bytes + kShareBytes - 1) / kShareBytes), 1, panels);
  const int64_t all = filter.groups * filter.outputs * filter.depth * filter.taps;
  const int64_t cost = (std::min<int64_t>(product.positions, kMaskedConvChunk) * all +
                        product.batch * product.plane / chunks * filter.groups * filter.outputs) /
                       shares;
  run(chunks * shares, worth(cost), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % chunks * kMaskedConvChunk, share = item / chunks;
      kernels.multiply[dtype](product, first, std::min(first + kMaskedConvChunk, product.positions),
                              share * panels / shares, (share + 1) * panels / shares);
    }
  });
}

// Each pixel that is read gathers what flows back to it: no two threads add to the same place.
void sum_input_gradients(const MaskedConvCall& call, const Reach& reach, const ParallelRun& run) {
  const MaskedConv& op = call.op;
  const int64_t taps = op.taps();
  MaskedConvFilter filter = filter_of(op);
  if (!filter.depthwise) std::swap(filter.outputs, filter.depth);
  std::vector<int64_t> table(reach.pixels.size() * static_cast<size_t>(taps), 0);
  for (size_t i = 0; i < reach.table.size(); ++i) {
    const int64_t pixel = reach.table[i] - 1, tap = static_cast<int64_t>(i) % taps;
    if (pixel >= 0) table[static_cast<size_t>(pixel * taps + tap)] = 1 + static_cast<int64_t>(i) / taps;
  }
  const AlignedBuffer swapped = allocate(op.outputs * op.group_channels() * taps, call.dtype);
  run(op.groups, worth(op.group_outputs() * op.group_channels() * taps),
      [&](int64_t begin, int64_t end) { masked_conv_cpu().swap_channels[call.dtype](op, begin, end, swapped.get()); });
  const AlignedBuffer packed = pack(filter, filter.depthwise ? op.weight : swapped.get(), call.dtype, run);
  const AlignedBuffer rows = rows_of(op.grad_output, op.output_plane(), op.outputs, reach.positions, call.dtype, run);
  multiply({filter, op.batch, op.input_plane(), static_cast<int64_t>(reach.pixels.size()), reach.pixels.data(),
            table.data(), rows.get(), op.outputs, packed.get(), nullptr, op.grad_input},
           call.dtype, run);
}

void sum_weight_gradients(const MaskedConvCall& call, const Reach& reach, const ParallelRun& run) {
  const MaskedConvCpuKernels& kernels = masked_conv_cpu();
  const MaskedConv& op = call.op;
  const std::vector<int64_t> pixels = offsets_of(reach.pixels, op.channels, op.input_plane());
  std::vector<int64_t> source(reach.table.size());
  std::transform(reach.table.begin(), reach.table.end(), source.begin(),
                 [&](int64_t row) { return row == 0 ? -1 : pixels[static_cast<size_t>(row - 1)]; });
  const std::vector<int64_t> offsets = offsets_of(reach.positions, op.outputs, op.output_plane());
  const auto positions = static_cast<int64_t>(reach.positions.size());
  // The panels of the gradients are those of weights [outputs, positions].
  const MaskedConvFilter shape = {op.groups, op.group_outputs(), positions, 1, false};
  const AlignedBuffer grads = allocate(kernels.packed_size[call.dtype](shape), call.dtype);
  const int64_t panels = op.groups * kernels.panels[call.dtype](shape), outputs = op.outputs;
  // Without positions there is nothing to pack, and there need be no gradient to point into.
  const int64_t packed = positions == 0 ? 0 : panels;
  run(packed, worth(4 * positions * outputs / panels), [&](int64_t begin, int64_t end) {
    kernels.pack_grads[call.dtype](op, offsets.data(), positions, begin, end, grads.get());
  });
  const MaskedConvWeightSums sums = {&op, positions, source.data(), grads.get()};
  const int64_t blocks = op.groups * op.taps() * kernels.weight_blocks(op);
  run(blocks, worth(positions * op.group_outputs() * op.group_channels() * op.groups * op.taps() / blocks),
      [&](int64_t begin, int64_t end) { kernels.sum_weights[call.dtype](sums, begin, end); });
  run(panels, worth(positions * outputs / panels),
      [&](int64_t begin, int64_t end) { kernels.sum_bias[call.dtype](sums, begin, end); });
}

}  // namespace

const MaskedConvCpuKernels& masked_conv_cpu() {
#if defined(VD_X86)
  if (cpu_isa() == CpuIsa::kAvx512) return masked_conv_avx512;
  if (cpu_isa() == CpuIsa::kAvx2) return masked_conv_avx2;
#endif
  return masked_conv_baseline;
}

AlignedBuffer masked_conv_pack(const MaskedConvCall& call, const ParallelRun& run) {
  return pack(filter_of(call.op), call.op.weight, call.dtype, run);
}

void masked_conv_cpu_forward(const MaskedConvCall& call, const void* packed, const ParallelRun& run) {
  const MaskedConv& op = call.op;
  const Reach reach = reach_of<kPixelBlock>(op);
  std::optional<AlignedBuffer> mine;
  if (packed == nullptr) packed = mine.emplace(masked_conv_pack(call, run)).get();
  const AlignedBuffer rows = rows_of(op.input, op.input_plane(), op.channels, reach.pixels, call.dtype, run);
  multiply({filter_of(op), op.batch, op.output_plane(), static_cast<int64_t>(reach.positions.size()),
            reach.positions.data(), reach.table.data(), rows.get(), op.channels, packed, op.bias, op.output},
           call.dtype, run);
}

void masked_conv_cpu_backward(const MaskedConvCall& call, const ParallelRun& run) {
  const Reach reach = reach_of<1>(call.op);
  sum_input_gradients(call, reach, run);
  sum_weight_gradients(call, reach, run);
}

}  // namespace visdeploy
