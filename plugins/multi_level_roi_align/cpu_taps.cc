// Compiled once, without fused multiply-adds: positions come out the same on every machine and engine, to the last bit.

#include "multi_level_roi_align/cpu_taps.h"

#include <algorithm>

#include "visdeploy/c_api.h"

namespace visdeploy {
namespace {

template <typename Real>
RoiAxis<double> widen(const RoiAxis<Real>& axis) {
  return {axis.start, axis.bin, axis.samples, axis.size};
}

template <typename Real>
int64_t measure(const MultiLevelRoiAlign& op, RoiPlan* plans) {
  int64_t offset = 0;
  for (int64_t r = 0; r < op.rois; ++r) {
    const Real* box = static_cast<const Real*>(op.boxes) + 4 * r;
    RoiPlan& plan = plans[r];
    plan = {};
    plan.offset = offset;
    plan.level = is_usable(box) ? roi_level(box, op.finest_scale, op.levels) : -1;
    if (plan.level < 0) continue;
    const RoiAlignLevel& level = op.level[plan.level];
    const Real scale = Real(level.scale);
    plan.rows = widen(roi_axis(box[1], box[3], scale, op.output_height, op.sampling_ratio, level.height));
    plan.columns = widen(roi_axis(box[0], box[2], scale, op.output_width, op.sampling_ratio, level.width));
    plan.row_capacity = std::min(2 * plan.rows.samples, level.height);
    plan.column_capacity = std::min(2 * plan.columns.samples, level.width);
    offset += bytes_of_taps<Real>(op, plan);
  }
  return offset;
}

// The cells that one bin takes along an axis, each once, in ascending order; returns their number. Samples are walked
// in the order of their positions, so that a cell met before is one of the last two.
template <typename Real>
int32_t find_bin(const RoiAxis<Real>& axis, int32_t bin, int32_t capacity, int64_t step, Real* weight, int32_t* index) {
  const Real share = Real(1) / Real(axis.samples);
  int32_t count = 0;
  const auto add = [&](int32_t cell, Real part) {
    if (part == Real(0)) return;
    if (count > 0 && index[(count - 1) * step] == cell) {
      weight[(count - 1) * step] += part;
    } else if (count > 1 && index[(count - 2) * step] == cell) {
      weight[(count - 2) * step] += part;
    } else if (count < capacity) {
      weight[count * step] = part;
      index[count * step] = cell;
      ++count;
    }
  };
  for (int32_t i = 0; i < axis.samples; ++i) {
    const int32_t sample = axis.bin < Real(0) ? axis.samples - 1 - i : i;
    const RoiTap<Real> tap = roi_tap(sample_position(axis, bin, sample), axis.size);
    if (tap.low < 0) continue;
    add(tap.low, (Real(1) - tap.share) * share);
    add(tap.high, tap.share * share);
  }
  return count;
}

template <typename Real>
void find_axis(const RoiAxis<double>& wide, int32_t bins, int32_t capacity, const RoiBinTaps<Real>& taps) {
  const RoiAxis<Real> axis = {Real(wide.start), Real(wide.bin), wide.samples, wide.size};
  for (int32_t b = 0; b < bins; ++b) {
    const int64_t at = b * taps.bin_step;
    taps.count[b] = find_bin(axis, b, capacity, taps.tap_step, taps.weight + at, taps.index + at);
  }
}

// Gives every column of bins as many taps as the longest has, and counts columns from the first that is read.
template <typename Real>
void even_out_columns(const MultiLevelRoiAlign& op, RoiPlan& plan, const RoiBinTaps<Real>& taps) {
  const int32_t map_width = plan.columns.size;
  int32_t most = 0, first = map_width, last = -1;
  for (int32_t b = 0; b < op.output_width; ++b) {
    const int32_t count = taps.count[b];
    if (count == 0) continue;
    most = count > most ? count : most;
    first = std::min(first, taps.index[b]);
    const int32_t end = taps.index[(count - 1) * taps.tap_step + b];
    last = end > last ? end : last;
  }
  plan.column_taps = most;
  if (most == 0) return;
  plan.width = std::min(round_up_to_lanes(last - first + 1), map_width);
  plan.first_column = std::min(first, map_width - plan.width);
  for (int32_t b = 0; b < taps.tap_step; ++b) {
    if (b >= op.output_width) taps.count[b] = 0;
    const int32_t count = taps.count[b];
    for (int32_t t = 0; t < most; ++t) {
      const int64_t at = t * taps.tap_step + b;
      // The bin's own first cell once more, with weight 0: no other cell's NaN may come in.
      taps.weight[at] = t < count ? taps.weight[at] : Real(0);
      taps.index[at] = t < count ? taps.index[at] - plan.first_column : (count > 0 ? taps.index[b] : 0);
    }
  }
}

template <typename Real>
void find_taps(const RoiAlignJob& job, int64_t begin, int64_t end) {
  const MultiLevelRoiAlign& op = *job.op;
  for (int64_t r = begin; r < end; ++r) {
    RoiPlan& plan = job.plans[r];
    if (plan.level < 0) continue;
    const RoiTaps<Real> taps = taps_of<Real>(op, plan, job.pool);
    find_axis(plan.rows, op.output_height, plan.row_capacity, taps.rows);
    find_axis(plan.columns, op.output_width, plan.column_capacity, taps.columns);
    even_out_columns(op, plan, taps.columns);
  }
}

}  // namespace

RoiAlignWork::RoiAlignWork(const MultiLevelRoiAlign& op, int dtype)
    : wide_(dtype == VD_FLOAT64),
      plans_(static_cast<size_t>(op.rois)),
      order_(plans_.size()),
      first_(static_cast<size_t>(op.batch) + 1) {
  const int64_t bytes = wide_ ? measure<double>(op, plans_.data()) : measure<float>(op, plans_.data());
  pool_.resize(static_cast<size_t>(bytes) / sizeof(double) + 1);

  for (int64_t r = 0; r < op.rois; ++r) ++first_[static_cast<size_t>(op.batch_indices[r]) + 1];
  for (size_t n = 1; n < first_.size(); ++n) first_[n] += first_[n - 1];
  std::vector<int64_t> next = first_;
  for (int64_t r = 0; r < op.rois; ++r) {
    order_[static_cast<size_t>(next[static_cast<size_t>(op.batch_indices[r])]++)] = r;
  }

  const int64_t blocks = (op.channels + kRoiAlignChannels - 1) / kRoiAlignChannels;
  const int64_t bins = int64_t(op.output_height) * op.output_width;
  items = op.batch * blocks;
  item_cost = (op.rois / std::max<int64_t>(op.batch, 1) + 1) * kRoiAlignChannels * 8 * bins;
  tap_cost = int64_t(op.output_height + op.output_width) * std::max(op.sampling_ratio, 2) * 16;
  int32_t widest = 0;
  for (int32_t l = 0; l < op.levels; ++l) widest = std::max(widest, op.level[l].width);
  scratch = widest + 64;
  job = {&op, plans_.data(), reinterpret_cast<char*>(pool_.data()), order_.data(), first_.data()};
}

void RoiAlignWork::find_taps(int64_t begin, int64_t end) const {
  wide_ ? visdeploy::find_taps<double>(job, begin, end) : visdeploy::find_taps<float>(job, begin, end);
}

}  // namespace visdeploy
