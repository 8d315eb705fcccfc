#include "multi_level_roi_align/arguments.h"

#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "multi_level_roi_align";

void check_range(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  fail(kOp, "parameter " + std::string(name), std::to_string(value),
       std::to_string(least) + " to " + std::to_string(most));
}

void check_scale(const std::string& name, float value) {
  if (value > 0.0f && value <= 1e6f) return;
  fail(kOp, "parameter " + name, std::to_string(value), "above 0 and at most 1e6");
}

void read_params(const vd_roi_align_params* params, MultiLevelRoiAlign& op) {
  if (params == nullptr) fail(kOp, "parameters", "a null pointer", "a vd_roi_align_params");
  check_range("output_height", params->output_height, 1, kRoiAlignBins);
  check_range("output_width", params->output_width, 1, kRoiAlignBins);
  check_range("sampling_ratio", params->sampling_ratio, 0, kRoiAlignSamples);
  check_scale("finest_scale", params->finest_scale);
  op.output_height = static_cast<int32_t>(params->output_height);
  op.output_width = static_cast<int32_t>(params->output_width);
  op.sampling_ratio = static_cast<int32_t>(params->sampling_ratio);
  op.finest_scale = params->finest_scale;
}

int32_t count_levels(const vd_tensor* const levels[kRoiAlignLevels], const vd_roi_align_params& params) {
  int32_t count = 0;
  while (count < kRoiAlignLevels && levels[count] != nullptr) ++count;
  check_range("number of features", count, 1, kRoiAlignLevels);
  if (params.levels != count) {
    fail(kOp, "parameter spatial_scales", std::to_string(params.levels) + " scales",
         std::to_string(count) + ", one per feature");
  }
  return count;
}

// Returns the map's data.
void* check_level(const std::string& name, const vd_tensor* tensor, bool backward, MultiLevelRoiAlignCall& call,
                  RoiAlignLevel& level) {
  MultiLevelRoiAlign& op = call.op;
  const TensorCheck map(kOp, name.c_str(), tensor, 4);
  if (call.dtype == VD_OTHER) {
    call.dtype = map.dtype();
    op.batch = map.dim(0);
    op.channels = map.dim(1);
    if (backward) map.has_dtype({VD_FLOAT32, VD_FLOAT64});
    map.has_dtype({VD_FLOAT32, VD_FLOAT64, VD_FLOAT16, VD_BFLOAT16});
  }
  map.has_dtype({call.dtype}).has_shape({op.batch, op.channels, map.dim(2), map.dim(3)}).is_contiguous();
  // Positions are 32-bit numbers, and sums of two of them must be too.
  constexpr int64_t kMost = int64_t(1) << 30;
  const int64_t height = map.dim(2), width = map.dim(3);
  if (op.channels < 1 || height < 1 || width < 1 || height > kMost / width) {
    fail(kOp, "tensor " + name, shape_text(map.shape()),
         "at least one channel, row and column, and at most 2^30 cells");
  }
  level.height = static_cast<int32_t>(height);
  level.width = static_cast<int32_t>(width);
  return map.data();
}

Shape output_shape(const MultiLevelRoiAlign& op) { return {op.rois, op.channels, op.output_height, op.output_width}; }

}  // namespace

MultiLevelRoiAlignCall check_multi_level_roi_align(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                   const vd_tensor* const levels[kRoiAlignLevels],
                                                   const vd_roi_align_params* params, bool backward) {
  MultiLevelRoiAlignCall call;
  MultiLevelRoiAlign& op = call.op;
  read_params(params, op);
  const TensorCheck boxes(kOp, "rois", rois, 2);
  op.rois = boxes.dim(0);
  boxes.has_shape({op.rois, 4}).is_contiguous();
  const TensorCheck indices(kOp, "batch_indices", batch_indices, 1);
  indices.has_dtype({VD_INT64}).has_shape({op.rois}).is_contiguous();
  op.levels = count_levels(levels, *params);
  for (int32_t l = 0; l < op.levels; ++l) {
    const std::string number = "[" + std::to_string(l) + "]";
    void* data =
        check_level((backward ? "grad_features" : "features") + number, levels[l], backward, call, op.level[l]);
    op.level[l].feature = backward ? nullptr : data;
    op.level[l].grad = backward ? data : nullptr;
    check_scale("spatial_scales" + number, params->spatial_scales[l]);
    op.level[l].scale = params->spatial_scales[l];
  }
  // Half-precision coordinates would be off by whole cells.
  boxes.has_dtype({call.dtype == VD_FLOAT64 ? VD_FLOAT64 : VD_FLOAT32});
  op.boxes = boxes.data();
  op.batch_indices = static_cast<const int64_t*>(indices.data());
  return call;
}

void check_output(MultiLevelRoiAlignCall& call, const vd_tensor* output) {
  const TensorCheck check(kOp, "output", output, 4);
  call.op.output = check.has_dtype({call.dtype}).has_shape(output_shape(call.op)).is_contiguous().data();
}

void check_grad_output(MultiLevelRoiAlignCall& call, const vd_tensor* grad_output) {
  const TensorCheck check(kOp, "grad_output", grad_output, 4);
  call.op.grad_output = check.has_dtype({call.dtype}).has_shape(output_shape(call.op)).is_contiguous().data();
}

void check_batch_indices(const MultiLevelRoiAlign& op) {
  for (int64_t r = 0; r < op.rois; ++r) {
    const int64_t index = op.batch_indices[r];
    if (index >= 0 && index < op.batch) continue;
    fail(kOp, "tensor batch_indices, roi " + std::to_string(r), std::to_string(index),
         op.batch == 0 ? "no rois, because there are no images" : "0 to " + std::to_string(op.batch - 1));
  }
}

}  // namespace visdeploy
