// The forward CPU kernel. Included only by cpu_kernel.cc, which is compiled once per instruction set.
#pragma once

#include "deform_conv/cpu_kernel.h"
#include "deform_conv/cpu_sample.h"

namespace visdeploy {
namespace {

constexpr int64_t kLongestBlock = 96;          // output positions: a multiple of kTileRows
constexpr int64_t kLongestColumn = 512;        // sampled values per position that are multiplied at once, about
constexpr int64_t kSampledBytes = 256 * 1024;  // of a block: they stay in the L2 cache
constexpr int64_t kLeastBlocks = 8;            // per image, so that threads find work in small maps

template <typename Real>
VD_HD Panels<Real> forward_panels(const DeformConv& op) {
  return {op.group_outputs(), op.group_channels() * op.taps()};
}

template <typename Real>
struct ForwardScratch {
  Arena arena;
  Points<Real> points;
  Real *zeros, *sampled, *sums;

  VD_HD ForwardScratch(const DeformConv& op, const DeformConvPlan& plan, void* memory)
      : arena{static_cast<char*>(memory)}, points(arena, plan.block) {
    zeros = arena.take<Real>(op.channels);
    sampled = arena.take<Real>(plan.block * plan.taps * op.channels);
    sums = arena.take<Real>(plan.block * op.groups * forward_panels<Real>(op).padded_columns());
  }
};

template <typename T>
DeformConvPacking plan_packing(const DeformConv& op) {
  const Panels<Acc<T>> panels = forward_panels<Acc<T>>(op);
  return {op.groups * panels.count(), op.groups * panels.size() * static_cast<int64_t>(sizeof(Acc<T>))};
}

template <typename T>
DeformConvPlan plan_forward(const DeformConv& op) {
  const auto size = static_cast<int64_t>(sizeof(Acc<T>));
  DeformConvPlan plan = {};
  plan.strips = op.batch * parts_of(op.pixels(), kStrip);
  plan.map_bytes = op.batch * op.pixels() * op.channels * size;
  plan.taps = smaller(op.taps(), larger(1, kLongestColumn / op.channels));
  // As many positions as the cache holds, but no fewer than make the weights' way through it worth while.
  const int64_t fitting = kSampledBytes / (plan.taps * op.channels * size);
  int64_t block = smaller(kLongestBlock, larger(fitting, 4 * kTileRows));
  block = smaller(block, larger(parts_of(op.positions(), kLeastBlocks), 4 * kTileRows));
  plan.blocks = parts_of(op.positions(), block);
  plan.block = round_up(parts_of(op.positions(), plan.blocks), kTileRows);
  plan.blocks = parts_of(op.positions(), plan.block);
  plan.scratch_bytes = ForwardScratch<Acc<T>>(op, plan, nullptr).arena.bytes;
  return plan;
}

template <typename T>
void pack_forward(const DeformConv& op, int64_t begin, int64_t end, void* packed) {
  const Panels<Acc<T>> panels = forward_panels<Acc<T>>(op);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t group = i / panels.count(), panel = i % panels.count();
    const T* weight = static_cast<const T*>(op.weight) + group * op.group_outputs() * panels.depth;
    pack_weights(weight, op.group_outputs(), op.group_channels(), op.taps(), panel, panel + 1,
                 static_cast<Acc<T>*>(packed) + group * panels.size());
  }
}

template <typename T>
void lay_out(const DeformConv& op, int64_t begin, int64_t end, void* maps) {
  const int64_t strips = parts_of(op.pixels(), kStrip);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t n = i / strips;
    lay_out_strip<T>(op, n, i % strips, static_cast<Acc<T>*>(maps) + n * op.pixels() * op.channels);
  }
}

template <typename Real>
VD_HD void sample_channels(const Rows<Real>& rows, int64_t begin, int64_t end, Real* sampled) {
  int64_t c = begin;
  for (; c + kLanes<Real> <= end; c += kLanes<Real>, sampled += kLanes<Real>) {
    store_vector(sampled,
                 rows.weight[0] * load_vector(rows.row[0] + c) + rows.weight[1] * load_vector(rows.row[1] + c) +
                     rows.weight[2] * load_vector(rows.row[2] + c) + rows.weight[3] * load_vector(rows.row[3] + c));
  }
  for (; c < end; ++c, ++sampled) {
    *sampled = rows.weight[0] * rows.row[0][c] + rows.weight[1] * rows.row[1][c] + rows.weight[2] * rows.row[2][c] +
               rows.weight[3] * rows.row[3][c];
  }
}

// Samples taps [tap, tap + taps) at `count` positions. A position's samples are by group, tap, channel.
template <typename T>
VD_HD void sample_block(const DeformConv& op, const Acc<T>* map, int64_t n, int64_t first, int64_t count, int64_t tap,
                        int64_t taps, ForwardScratch<Acc<T>>& scratch) {
  using Real = Acc<T>;
  for (int64_t offset_group = 0; offset_group < op.offset_groups; ++offset_group) {
    for (int64_t t = 0; t < taps; ++t) {
      scratch.points.template find<T>(op, n, offset_group, tap + t, first, count);
      for_channels(op, offset_group, [&](const Channels& range) {
        const int64_t column = range.group * (taps - 1) * op.group_channels() + t * op.group_channels() + range.begin;
        for (int64_t i = 0; i < count; ++i) {
          const Rows<Real> rows(scratch.points, i, map, op.channels, scratch.zeros);
          sample_channels(rows, range.begin, range.end, scratch.sampled + i * taps * op.channels + column);
        }
      });
    }
  }
}

// Adds the product of the sampled taps and their weights to the sums of each group and panel.
template <typename Real>
VD_HD void multiply_block(const DeformConv& op, const DeformConvPlan& plan, const Real* packed, int64_t count,
                          int64_t tap, int64_t taps, const ForwardScratch<Real>& scratch) {
  const Panels<Real> panels = forward_panels<Real>(op);
  const int64_t depth = taps * op.group_channels(), pitch = taps * op.channels;
  for (int64_t group = 0; group < op.groups; ++group) {
    const Real* weights = packed + group * panels.size();
    Real* sums = scratch.sums + group * panels.padded_columns() * plan.block;
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      const int vectors = panels.vectors(panel);
      const int64_t width = vectors * kLanes<Real>;
      const Real* part = weights + panels.start(panel) + tap * op.group_channels() * width;
      for (int64_t i = 0; i < count; i += kTileRows) {
        const Real* rows[kTileRows];
        for (int m = 0; m < kTileRows; ++m) {
          rows[m] = scratch.sampled + smaller(i + m, count - 1) * pitch + group * depth;
        }
        multiply_panel(vectors, rows, 1, depth, part, sums + panel * kPanelWidth<Real> * plan.block + i * width, width);
      }
    }
  }
}

// Calls visit(output, sums, width) for each output channel, whose sums are `width` apart from position to position.
template <typename Real, typename Visit>
VD_HD void for_outputs(const DeformConv& op, const DeformConvPlan& plan, Real* sums, const Visit& visit) {
  const Panels<Real> panels = forward_panels<Real>(op);
  for (int64_t o = 0; o < op.outputs; ++o) {
    const int64_t group = o / op.group_outputs(), column = o % op.group_outputs();
    const int64_t panel = column / kPanelWidth<Real>;
    visit(o,
          sums + (group * panels.padded_columns() + panel * kPanelWidth<Real>)*plan.block + column % kPanelWidth<Real>,
          panels.vectors(panel) * kLanes<Real>);
  }
}

template <typename T>
void convolve(const DeformConv& op, const DeformConvPlan& plan, const void* packed, const void* maps, int64_t begin,
              int64_t end, void* memory) {
  using Real = Acc<T>;
  ForwardScratch<Real> scratch(op, plan, memory);
  for (int64_t c = 0; c < op.channels; ++c) scratch.zeros[c] = Real(0);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t n = block / plan.blocks, first = block % plan.blocks * plan.block;
    const int64_t count = smaller(plan.block, op.positions() - first);
    const Real* map = static_cast<const Real*>(maps) + n * op.pixels() * op.channels;
    for (int64_t i = 0; i < plan.block * op.groups * forward_panels<Real>(op).padded_columns(); ++i) {
      scratch.sums[i] = Real(0);
    }
    scratch.points.place(op, first, count);
    for (int64_t tap = 0; tap < op.taps(); tap += plan.taps) {
      const int64_t taps = smaller(plan.taps, op.taps() - tap);
      sample_block<T>(op, map, n, first, count, tap, taps, scratch);
      multiply_block(op, plan, static_cast<const Real*>(packed), count, tap, taps, scratch);
    }
    for_outputs(op, plan, scratch.sums, [&](int64_t o, const Real* sums, int64_t width) {
      const Real bias = op.bias == nullptr ? Real(0) : load(static_cast<const T*>(op.bias) + o);
      T* output = static_cast<T*>(op.output) + (n * op.outputs + o) * op.positions() + first;
      for (int64_t i = 0; i < count; ++i) store(output + i, sums[i * width] + bias);
    });
  }
}

}  // namespace
}  // namespace visdeploy
