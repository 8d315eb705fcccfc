// The backward CPU kernels. Included only by cpu_kernel.cc, which is compiled once per instruction set.
//
// Columns are those of the forward kernel, of a whole chunk of positions: [position][group][tap][channel], each group
// filled up to whole vectors. Every number is summed by one thread in an order that only the shapes decide.
#pragma once

#include "deform_conv/cpu_kernel.h"
#include "deform_conv/cpu_sample.h"

namespace visdeploy {
namespace {

constexpr int64_t kGradientBlock = 96;              // output positions: a multiple of kTileRows
constexpr int64_t kColumnBytes = 16 * 1024 * 1024;  // of one chunk, about
constexpr int64_t kSlice = 64;                      // channels of the input's gradient that one thread adds to

// The matrix that turns gradients of outputs into gradients of columns.
template <typename T>
VD_HD Panels<T> column_panels(const DeformConv& op) {
  return {op.group_channels() * op.taps(), op.group_outputs()};
}

template <typename T>
VD_HD int64_t column_pitch(const DeformConv& op) {
  return op.groups * column_panels<T>(op).padded_columns();
}

// Calls visit(Channels) for each slice, in order.
template <typename Visit>
VD_HD void for_slices(const DeformConv& op, const Visit& visit) {
  for (int64_t offset_group = 0; offset_group < op.offset_groups; ++offset_group) {
    for_channels(op, offset_group, [&](Channels range) {
      for (const int64_t end = range.end; range.begin < end; range.begin += kSlice) {
        range.end = smaller(range.begin + kSlice, end);
        visit(range);
      }
    });
  }
}

template <typename T>
struct BackwardScratch {
  Arena arena;
  Points<T> points;
  T *zeros, *grads, *panel;

  VD_HD BackwardScratch(const DeformConv& op, const DeformConvBackwardPlan& plan, void* memory)
      : arena{static_cast<char*>(memory)}, points(arena, plan.block) {
    zeros = arena.take<T>(op.channels);
    grads = arena.take<T>(plan.block * op.outputs);
    panel = arena.take<T>(plan.chunk * kPanelWidth<T>);
  }
};

template <typename T>
DeformConvBackwardPlan plan_backward(const DeformConv& op) {
  const auto size = static_cast<int64_t>(sizeof(T));
  const Panels<T> panels = column_panels<T>(op);
  DeformConvBackwardPlan plan = {};
  plan.panels = op.groups * panels.count();
  plan.packed_bytes = op.groups * panels.size() * size;
  plan.strips = parts_of(op.pixels(), kStrip);
  plan.map_bytes = op.pixels() * op.channels * size;
  plan.block = smaller(kGradientBlock, round_up(op.positions(), kTileRows));
  const int64_t fitting = kColumnBytes / (column_pitch<T>(op) * size) / plan.block * plan.block;
  plan.chunk = smaller(larger(fitting, plan.block), round_up(op.positions(), plan.block));
  plan.chunks = parts_of(op.positions(), plan.chunk);
  plan.column_bytes = plan.chunk * column_pitch<T>(op) * size;
  for_slices(op, [&](const Channels&) { ++plan.slices; });
  plan.column_panels = plan.panels;
  plan.sum_bytes = column_pitch<T>(op) * round_up(op.group_outputs(), kTileRows) * size;
  plan.scratch_bytes = BackwardScratch<T>(op, plan, nullptr).arena.bytes;
  return plan;
}

template <typename T>
void pack_backward(const DeformConv& op, int64_t begin, int64_t end, void* packed) {
  const Panels<T> panels = column_panels<T>(op);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t group = i / panels.count(), panel = i % panels.count();
    const int64_t width = panels.vectors(panel) * kLanes<T>;
    T* row = static_cast<T*>(packed) + group * panels.size() + panels.start(panel);
    const T* weight = static_cast<const T*>(op.weight) + group * op.group_outputs() * panels.columns;
    for (int64_t o = 0; o < op.group_outputs(); ++o, row += width, weight += panels.columns) {
      for (int64_t j = 0; j < width; ++j) {
        const int64_t column = panel * kPanelWidth<T> + j;
        const int64_t tap = column / op.group_channels(), channel = column % op.group_channels();
        row[j] = column < panels.columns ? weight[channel * op.taps() + tap] : T(0);
      }
    }
  }
}

template <typename T>
void lay_out_image(const DeformConv& op, int64_t n, int64_t begin, int64_t end, void* map) {
  for (int64_t strip = begin; strip < end; ++strip) lay_out_strip<T>(op, n, strip, static_cast<T*>(map));
}

template <typename T>
void lay_back_image(const DeformConv& op, int64_t n, int64_t begin, int64_t end, const void* grad_map) {
  for (int64_t first = begin * kStrip; first < smaller(end * kStrip, op.pixels()); first += kStrip) {
    transpose(static_cast<const T*>(grad_map) + first * op.channels, op.channels, smaller(kStrip, op.pixels() - first),
              op.channels, static_cast<T*>(op.grad_input) + n * op.channels * op.pixels() + first, op.pixels());
  }
}

// Gradients of the columns of one block: those of its outputs times the weights.
template <typename T>
VD_HD void multiply_gradients(const DeformConv& op, const DeformConvChunk& chunk, const T* packed, int64_t first,
                              int64_t count, T* grad_columns, const BackwardScratch<T>& scratch) {
  const Panels<T> panels = column_panels<T>(op);
  const int64_t pitch = column_pitch<T>(op);
  const T* planes = static_cast<const T*>(op.grad_output) + chunk.n * op.outputs * op.positions() + first;
  transpose(planes, op.positions(), op.outputs, count, scratch.grads, op.outputs);
  for (int64_t i = 0; i < round_up(count, kTileRows) * pitch; ++i) grad_columns[i] = T(0);
  for (int64_t group = 0; group < op.groups; ++group) {
    for (int64_t panel = 0; panel < panels.count(); ++panel) {
      for (int64_t i = 0; i < count; i += kTileRows) {
        const T* rows[kTileRows];
        for (int m = 0; m < kTileRows; ++m) {
          rows[m] = scratch.grads + smaller(i + m, count - 1) * op.outputs + group * op.group_outputs();
        }
        T* sums = grad_columns + i * pitch + group * panels.padded_columns() + panel * kPanelWidth<T>;
        multiply_panel(panels.vectors(panel), rows, 1, op.group_outputs(),
                       packed + group * panels.size() + panels.start(panel), sums, pitch);
      }
    }
  }
}

template <typename T>
VD_HD T sum_of(const Vector<T>& vector) {
  T sum = T(0);
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += vector[lane];
  return sum;
}

// Samples channels [begin, end) of one point into column, and adds the products of grad and each neighbour to dots.
template <typename T>
VD_HD void sample_with_dots(const Rows<T>& rows, int64_t begin, int64_t end, const T* grad, T* column, T dots[4]) {
  Vector<T> sums[4] = {};
  int64_t c = begin;
  for (; c + kLanes<T> <= end; c += kLanes<T>, grad += kLanes<T>, column += kLanes<T>) {
    const Vector<T> each = load_vector(grad);
    Vector<T> sample = {};
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const Vector<T> value = load_vector(rows.row[k] + c);
      sums[k] += each * value;
      sample += rows.weight[k] * value;
    }
    store_vector(column, sample);
  }
  for (int k = 0; k < 4; ++k) dots[k] += sum_of<T>(sums[k]);
  for (; c < end; ++c, ++grad, ++column) {
    *column = T(0);
    for (int k = 0; k < 4; ++k) {
      dots[k] += *grad * rows.row[k][c];
      *column += rows.weight[k] * rows.row[k][c];
    }
  }
}

template <typename T>
VD_HD void write_tap_gradients(const DeformConv& op, const Points<T>& points, int64_t i, int64_t mask_plane,
                               int64_t position, const T dots[4]) {
  TapSample<T> sample = {};
  sample.found.down = points.down[i];
  sample.found.right = points.right[i];
  sample.mask = points.mask[i];
  const TapGradients<T> grad = tap_gradients(sample, dots);
  T* offset = static_cast<T*>(op.grad_offset) + 2 * mask_plane + position;
  offset[0] = grad.offset_y;
  offset[op.positions()] = grad.offset_x;
  if (op.grad_mask != nullptr) static_cast<T*>(op.grad_mask)[mask_plane + position] = grad.mask;
}

template <typename T>
void columns(const DeformConv& op, const DeformConvBackwardPlan& plan, const DeformConvMemory& memory,
             const DeformConvChunk& chunk, int64_t begin, int64_t end, void* own) {
  BackwardScratch<T> scratch(op, plan, own);
  const int64_t pitch = column_pitch<T>(op), group_pitch = pitch / op.groups;
  for (int64_t c = 0; c < op.channels; ++c) scratch.zeros[c] = T(0);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = chunk.first + block * plan.block, count = smaller(plan.block, chunk.last - first);
    T* const column = static_cast<T*>(memory.columns) + block * plan.block * pitch;
    T* const grad = static_cast<T*>(memory.grad_columns) + block * plan.block * pitch;
    multiply_gradients(op, chunk, static_cast<const T*>(memory.packed), first, count, grad, scratch);
    scratch.points.place(op, first, count);
    for (int64_t offset_group = 0; offset_group < op.offset_groups; ++offset_group) {
      for (int64_t tap = 0; tap < op.taps(); ++tap) {
        scratch.points.template find<T>(op, chunk.n, offset_group, tap, first, count);
        for (int64_t i = 0; i < count; ++i) {
          const Rows<T> rows(scratch.points, i, static_cast<const T*>(memory.map), op.channels, scratch.zeros);
          T dots[4] = {};
          for_channels(op, offset_group, [&](const Channels& range) {
            const int64_t at =
                i * pitch + range.group * (group_pitch - op.group_channels()) + tap * op.group_channels() + range.begin;
            sample_with_dots(rows, range.begin, range.end, grad + at, column + at, dots);
          });
          write_tap_gradients(op, scratch.points, i, op.mask_plane(chunk.n, offset_group, tap), first + i, dots);
        }
      }
    }
  }
}

// Adds one block's gradient through one slice of channels to the map.
template <typename T>
VD_HD void scatter_block(const DeformConv& op, const DeformConvChunk& chunk, const Channels& slice, int64_t first,
                         int64_t count, const T* grad_columns, T* grad_map, BackwardScratch<T>& scratch) {
  const int64_t pitch = column_pitch<T>(op), group_pitch = pitch / op.groups;
  const int64_t width = slice.end - slice.begin;
  scratch.points.place(op, first, count);
  for (int64_t tap = 0; tap < op.taps(); ++tap) {
    scratch.points.template find<T>(op, chunk.n, slice.offset_group, tap, first, count);
    const T* grad =
        grad_columns + slice.group * (group_pitch - op.group_channels()) + tap * op.group_channels() + slice.begin;
    for (int64_t i = 0; i < count; ++i, grad += pitch) {
      for (int k = 0; k < 4; ++k) {
        const int32_t index = scratch.points.index[k][i];
        if (index < 0) continue;
        const T weight = scratch.points.weight[k][i];
        T* row = grad_map + index * op.channels + slice.begin;
        for (int64_t c = 0; c < width; ++c) row[c] += weight * grad[c];
      }
    }
  }
}

template <typename T>
void scatter(const DeformConv& op, const DeformConvBackwardPlan& plan, const DeformConvMemory& memory,
             const DeformConvChunk& chunk, int64_t begin, int64_t end, void* own) {
  BackwardScratch<T> scratch(op, plan, own);
  int64_t number = 0;
  for_slices(op, [&](const Channels& slice) {
    const int64_t mine = number++;
    if (mine < begin || mine >= end) return;
    for (int64_t first = chunk.first; first < chunk.last; first += plan.block) {
      const T* grad = static_cast<const T*>(memory.grad_columns) + (first - chunk.first) * column_pitch<T>(op);
      scatter_block(op, chunk, slice, first, smaller(plan.block, chunk.last - first), grad,
                    static_cast<T*>(memory.grad_map), scratch);
    }
  });
}

// The sums of one panel of columns: rows of group_outputs, filled up to whole tiles.
template <typename T>
VD_HD T* panel_sums(const DeformConv& op, void* sums, int64_t group, int64_t panel) {
  const int64_t columns = group * column_panels<T>(op).padded_columns() + panel * kPanelWidth<T>;
  return static_cast<T*>(sums) + columns * round_up(op.group_outputs(), kTileRows);
}

template <typename T>
void weigh(const DeformConv& op, const DeformConvBackwardPlan& plan, const DeformConvMemory& memory,
           const DeformConvChunk& chunk, int64_t begin, int64_t end, void* own) {
  const BackwardScratch<T> scratch(op, plan, own);
  const Panels<T> panels = column_panels<T>(op);
  const int64_t pitch = column_pitch<T>(op), count = chunk.last - chunk.first;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t group = unit / panels.count(), panel = unit % panels.count();
    const int64_t width = panels.vectors(panel) * kLanes<T>;
    const int64_t filled = smaller(width, panels.columns - panel * kPanelWidth<T>);
    const T* column = static_cast<const T*>(memory.columns) + group * panels.padded_columns() + panel * kPanelWidth<T>;
    for (int64_t i = 0; i < count; ++i, column += pitch) {
      for (int64_t j = 0; j < filled; ++j) scratch.panel[i * width + j] = column[j];
      for (int64_t j = filled; j < width; ++j) scratch.panel[i * width + j] = T(0);
    }
    const T* grads = static_cast<const T*>(op.grad_output) + chunk.first +
                     (chunk.n * op.outputs + group * op.group_outputs()) * op.positions();
    T* sums = panel_sums<T>(op, memory.sums, group, panel);
    for (int64_t o = 0; o < op.group_outputs(); o += kTileRows) {
      const T* rows[kTileRows];
      for (int m = 0; m < kTileRows; ++m) rows[m] = grads + smaller(o + m, op.group_outputs() - 1) * op.positions();
      multiply_panel(panels.vectors(panel), rows, 1, count, scratch.panel, sums + o * width, width);
    }
  }
}

// The sum of one output channel's gradient over all images, in eight lanes.
template <typename T>
VD_HD T bias_gradient(const DeformConv& op, int64_t o) {
  double lanes[8] = {};
  for (int64_t n = 0; n < op.batch; ++n) {
    const T* grad = static_cast<const T*>(op.grad_output) + (n * op.outputs + o) * op.positions();
    int64_t i = 0;
    for (; i + 8 <= op.positions(); i += 8) {
      for (int lane = 0; lane < 8; ++lane) lanes[lane] += static_cast<double>(grad[i + lane]);
    }
    for (; i < op.positions(); ++i) lanes[i % 8] += static_cast<double>(grad[i]);
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return static_cast<T>(sum);
}

template <typename T>
void finish(const DeformConv& op, const DeformConvMemory& memory, int64_t begin, int64_t end) {
  const Panels<T> panels = column_panels<T>(op);
  for (int64_t o = begin; o < end; ++o) {
    const int64_t group = o / op.group_outputs(), row = o % op.group_outputs();
    T* grad = static_cast<T*>(op.grad_weight) + o * panels.columns;
    for (int64_t column = 0; column < panels.columns; ++column) {
      const int64_t panel = column / kPanelWidth<T>;
      const int64_t tap = column / op.group_channels(), channel = column % op.group_channels();
      const T* sums = panel_sums<T>(op, memory.sums, group, panel) + row * panels.vectors(panel) * kLanes<T>;
      grad[channel * op.taps() + tap] = sums[column % kPanelWidth<T>];
    }
    if (op.grad_bias != nullptr) static_cast<T*>(op.grad_bias)[o] = bias_gradient<T>(op, o);
  }
}

}  // namespace
}  // namespace visdeploy
