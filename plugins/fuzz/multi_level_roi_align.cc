// vd_multi_level_roi_align_*: a small pyramid and boxes, with faults in tensors and parameters.
#include "fuzz/target.h"
#include "fuzz/tensor.h"

namespace visdeploy::fuzz {
namespace {

constexpr const char* kOp = "multi_level_roi_align";
constexpr int64_t kMostLevels = VD_ROI_ALIGN_LEVELS;

void run(Bytes& bytes) {
  const bool backward = bytes.below(2), cuda = bytes.below(2);
  const int threads = static_cast<int>(bytes.between(-1, 3));
  const int64_t batch = bytes.below(3), channels = bytes.between(1, 20), rois = batch == 0 ? 0 : bytes.below(5);
  const int64_t levels = bytes.between(1, kMostLevels);
  const int32_t dtype = any_float(bytes), box_dtype = dtype == VD_FLOAT64 ? VD_FLOAT64 : VD_FLOAT32;
  vd_roi_align_params params = {};
  params.output_height = bytes.between(1, 4);
  params.output_width = bytes.between(1, 4);
  params.sampling_ratio = bytes.below(4);
  params.levels = levels;
  params.finest_scale = static_cast<float>(bytes.between(1, 56));
  std::vector<Tensor> tensors;
  tensors.emplace_back(Shape{rois, 4}, box_dtype);
  std::vector<int64_t> images;
  for (int64_t r = 0; r < rois; ++r) images.push_back(bytes.below(batch));
  tensors.emplace_back(Tensor({rois}, VD_INT64)).holding(images);
  for (int64_t level = 0; level < kMostLevels; ++level) {
    params.spatial_scales[level] = 1.0f / static_cast<float>(1 << level);
    const Shape map = {batch, channels, bytes.between(1, 6), bytes.between(1, 6)};
    tensors.push_back(level < levels ? Tensor(map, dtype) : Tensor::absent());
  }
  tensors.emplace_back(Shape{rois, channels, params.output_height, params.output_width}, dtype);
  if (bytes.seldom()) {
    int64_t* fields[] = {&params.output_height, &params.output_width, &params.sampling_ratio, &params.levels};
    *fields[bytes.below(4)] = bytes.odd_integer();
  }
  if (bytes.seldom()) params.spatial_scales[bytes.below(kMostLevels)] = static_cast<float>(bytes.number());
  if (bytes.seldom()) params.finest_scale = static_cast<float>(bytes.number());
  const vd_roi_align_params* given = bytes.seldom() ? nullptr : &params;
  spoil_some(tensors, bytes);
  const std::vector<const vd_tensor*> t = prepare_all(tensors, bytes);
  const auto call = [&](auto function, auto last) {
    check_result(kOp, function(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], given, last));
  };
  void* stream = nullptr;
  if (cuda) {
    call(backward ? vd_multi_level_roi_align_backward_cuda : vd_multi_level_roi_align_forward_cuda, stream);
  } else {
    call(backward ? vd_multi_level_roi_align_backward : vd_multi_level_roi_align_forward, threads);
  }
}

const Subject subject(run);

}  // namespace
}  // namespace visdeploy::fuzz
