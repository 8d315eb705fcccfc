#include "multi_level_roi_align/cuda_kernel.h"

#include "visdeploy/c_api.h"
#include "visdeploy/launch.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "multi_level_roi_align";
constexpr int kWidest = 8;  // channels of a thread: positions and weights are found once for them

// What one thread works on: a bin of a box on some channels. Neighbouring threads have neighbouring bins, so that they
// read neighbouring cells and write neighbouring outputs.
template <typename Real>
struct Work {
  int64_t output;   // of the first channel
  int64_t feature;  // of the first channel's map, cell 0
  int32_t level, row, column;
  RoiAxis<Real> rows, columns;
  Real share;  // of one sample in the mean
};

// Without samples for a box that is not usable or of no image.
template <int kWidth, typename Real>
VD_HD Work<Real> work_at(const MultiLevelRoiAlign& op, int64_t i) {
  const int64_t bins = int64_t(op.output_height) * op.output_width;
  const int64_t groups = op.channels / kWidth;
  const int64_t bin = i % bins, group = i / bins % groups, roi = i / bins / groups;
  Work<Real> work = {};
  work.row = static_cast<int32_t>(bin / op.output_width);
  work.column = static_cast<int32_t>(bin % op.output_width);
  work.output = (roi * op.channels + group * kWidth) * bins + bin;
  const Real* box = static_cast<const Real*>(op.boxes) + 4 * roi;
  const int64_t image = op.batch_indices[roi];
  if (image < 0 || image >= op.batch || !is_usable(box)) return work;
  work.level = roi_level(box, op.finest_scale, op.levels);
  const RoiAlignLevel& level = op.level[work.level];
  const Real scale = Real(level.scale);
  work.rows = roi_axis(box[1], box[3], scale, op.output_height, op.sampling_ratio, level.height);
  work.columns = roi_axis(box[0], box[2], scale, op.output_width, op.sampling_ratio, level.width);
  work.share = Real(1) / (Real(work.rows.samples) * Real(work.columns.samples));
  work.feature = (image * op.channels + group * kWidth) * level.height * level.width;
  return work;
}

// Calls visit(cell, weight) for each cell of each sample.
template <typename Real, typename Visit>
VD_HD void each_cell(const Work<Real>& work, Visit&& visit) {
  const int64_t width = work.columns.size;
  for (int32_t i = 0; i < work.rows.samples; ++i) {
    const RoiTap<Real> y = roi_tap(sample_position(work.rows, work.row, i), work.rows.size);
    if (y.low < 0) continue;
    for (int32_t j = 0; j < work.columns.samples; ++j) {
      const RoiTap<Real> x = roi_tap(sample_position(work.columns, work.column, j), work.columns.size);
      if (x.low < 0) continue;
      const Real up = (Real(1) - y.share) * work.share, down = y.share * work.share, left = Real(1) - x.share;
      visit(y.low * width + x.low, up * left);
      visit(y.low * width + x.high, up * x.share);
      visit(y.high * width + x.low, down * left);
      visit(y.high * width + x.high, down * x.share);
    }
  }
}

// kWidth divides the number of channels, so that loops over them have no end to test for and sums stay in registers.
template <typename T, int kWidth>
struct Forward {
  MultiLevelRoiAlign op;

  VD_HD void operator()(int64_t i) const {
    const Work<Acc<T>> work = work_at<kWidth, Acc<T>>(op, i);
    const RoiAlignLevel& level = op.level[work.level];
    const int64_t cells = int64_t(level.height) * level.width, bins = int64_t(op.output_height) * op.output_width;
    const T* map = static_cast<const T*>(level.feature) + work.feature;
    Acc<T> sums[kWidth] = {};
    each_cell(work, [&](int64_t cell, Acc<T> weight) {
      for (int c = 0; c < kWidth; ++c) sums[c] += weight * load(map + c * cells + cell);
    });
    T* output = static_cast<T*>(op.output) + work.output;
    for (int c = 0; c < kWidth; ++c) store(output + c * bins, sums[c]);
  }
};

template <typename T, int kWidth>
struct Backward {
  MultiLevelRoiAlign op;

  VD_HD void operator()(int64_t i) const {
    const Work<T> work = work_at<kWidth, T>(op, i);
    const RoiAlignLevel& level = op.level[work.level];
    const int64_t cells = int64_t(level.height) * level.width, bins = int64_t(op.output_height) * op.output_width;
    const T* grad_output = static_cast<const T*>(op.grad_output) + work.output;
    T* map = static_cast<T*>(level.grad) + work.feature;
    T grads[kWidth];
    for (int c = 0; c < kWidth; ++c) grads[c] = grad_output[c * bins];
    each_cell(work, [&](int64_t cell, T weight) {
      for (int c = 0; c < kWidth; ++c) atomic_add(map + c * cells + cell, weight * grads[c]);
    });
  }
};

int64_t threads_of(const MultiLevelRoiAlign& op, int width) {
  return op.rois * (op.channels / width) * op.output_height * op.output_width;
}

template <typename T>
void launch_forward(const MultiLevelRoiAlign& op, void* stream) {
  if (op.channels % kWidest == 0) {
    launch_items(kOp, Forward<T, kWidest>{op}, threads_of(op, kWidest), stream);
  } else {
    launch_items(kOp, Forward<T, 1>{op}, threads_of(op, 1), stream);
  }
}

template <typename T>
void launch_backward(const MultiLevelRoiAlign& op, void* stream) {
  for (int32_t l = 0; l < op.levels; ++l) {
    const int64_t elements = op.batch * op.channels * op.level[l].height * op.level[l].width;
    launch_zero(kOp, op.level[l].grad, elements * int64_t(sizeof(T)), stream);
  }
  if (op.channels % kWidest == 0) {
    launch_items(kOp, Backward<T, kWidest>{op}, threads_of(op, kWidest), stream);
  } else {
    launch_items(kOp, Backward<T, 1>{op}, threads_of(op, 1), stream);
  }
}

}  // namespace

void multi_level_roi_align_cuda_forward(const MultiLevelRoiAlign& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_forward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_forward<double>(op, stream);
  if (dtype == VD_FLOAT16) launch_forward<Half>(op, stream);
  if (dtype == VD_BFLOAT16) launch_forward<BFloat16>(op, stream);
}

void multi_level_roi_align_cuda_backward(const MultiLevelRoiAlign& op, int dtype, void* stream) {
  if (dtype == VD_FLOAT32) launch_backward<float>(op, stream);
  if (dtype == VD_FLOAT64) launch_backward<double>(op, stream);
}

}  // namespace visdeploy
