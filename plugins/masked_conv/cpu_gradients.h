// Gradients of weights and bias. Part of cpu_kernel.cc: compiled once per instruction set, local to that file.
#pragma once

#include "masked_conv/cpu_kernel.h"
#include "masked_conv/cpu_rows.h"

namespace visdeploy {
namespace {

constexpr int kSumSteps = 256;  // positions whose gradients are summed up before they are added to the others

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
}  // namespace visdeploy
