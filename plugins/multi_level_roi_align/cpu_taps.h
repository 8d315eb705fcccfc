// The first step of a call on the CPU: for each box, the rows that each row of bins takes and the columns that each
// column of bins takes, with their weights. All channels share them.
#pragma once

#include <vector>

#include "visdeploy/roi_align.h"

namespace visdeploy {

// One box, measured.
struct RoiPlan {
  int64_t offset;  // of its taps in the pool, in bytes
  int32_t level;   // -1 when it is not sampled at all
  RoiAxis<double> rows, columns;
  int32_t row_capacity, column_capacity;  // taps per bin at most
  // Known with the taps:
  int32_t column_taps;          // the most that any column of bins has
  int32_t first_column, width;  // the columns of the map that are read
};

struct RoiAlignJob {
  const MultiLevelRoiAlign* op;
  RoiPlan* plans;        // [rois]
  char* pool;            // the taps of all boxes
  const int64_t* order;  // boxes by image
  const int64_t* first;  // [batch + 1], where each image's boxes start in order
};

constexpr int32_t kRoiAlignLanes = 16;  // columns are read in groups of these where the map is wide enough

VD_HD int32_t lesser(int32_t a, int32_t b) { return a < b ? a : b; }
VD_HD int32_t round_up_to_lanes(int32_t value) {
  return (value + kRoiAlignLanes - 1) / kRoiAlignLanes * kRoiAlignLanes;
}

// Tap t of bin b is at [b * bin_step + t * tap_step].
template <typename Real>
struct RoiBinTaps {
  Real* weight;
  int32_t* index;
  int32_t* count;  // of each bin
  int64_t bin_step, tap_step;
};

// Rows are kept bin by bin; columns tap by tap, with bins padded to whole vectors.
template <typename Real>
struct RoiTaps {
  RoiBinTaps<Real> rows, columns;
};

// How much memory the taps of a box take.
template <typename Real>
VD_HD int64_t bytes_of_taps(const MultiLevelRoiAlign& op, const RoiPlan& plan) {
  const int64_t bins = round_up_to_lanes(op.output_width);
  const int64_t taps = int64_t(op.output_height) * plan.row_capacity + bins * plan.column_capacity;
  return (taps * int64_t(sizeof(Real) + 4) + (op.output_height + bins) * 4 + 7) / 8 * 8;
}

template <typename Real>
VD_HD RoiTaps<Real> taps_of(const MultiLevelRoiAlign& op, const RoiPlan& plan, char* pool) {
  const int64_t bins = round_up_to_lanes(op.output_width);
  const int64_t row_taps = int64_t(op.output_height) * plan.row_capacity, column_taps = bins * plan.column_capacity;
  RoiTaps<Real> taps;
  taps.rows.weight = reinterpret_cast<Real*>(pool + plan.offset);
  taps.columns.weight = taps.rows.weight + row_taps;
  taps.rows.index = reinterpret_cast<int32_t*>(taps.columns.weight + column_taps);
  taps.columns.index = taps.rows.index + row_taps;
  taps.rows.count = taps.columns.index + column_taps;
  taps.columns.count = taps.rows.count + op.output_height;
  taps.rows.bin_step = plan.row_capacity;
  taps.rows.tap_step = 1;
  taps.columns.bin_step = 1;
  taps.columns.tap_step = bins;
  return taps;
}

constexpr int64_t kRoiAlignChannels = 8;  // of an item

// A call with its memory. The second step goes through items: some channels of one image, so that a map is fetched
// from memory once for all boxes of its image.
class RoiAlignWork {
 public:
  RoiAlignWork(const MultiLevelRoiAlign& op, int dtype);
  RoiAlignWork(const RoiAlignWork&) = delete;
  RoiAlignWork& operator=(const RoiAlignWork&) = delete;

  // The taps of boxes [begin, end).
  void find_taps(int64_t begin, int64_t end) const;

  RoiAlignJob job;
  int64_t items, item_cost, tap_cost;  // costs in multiply-adds, of an item and of the taps of one box
  int64_t scratch;                     // doubles that a thread needs in the second step

 private:
  bool wide_;
  std::vector<RoiPlan> plans_;
  std::vector<double> pool_;
  std::vector<int64_t> order_, first_;
};

}  // namespace visdeploy
