// TensorRT binding: MultiLevelRoiAlign. A roi whose batch index names no image gives zeros: the indices are on the
// device, and an engine cannot stop to look at them.

#include <algorithm>

#include "core/error.h"
#include "multi_level_roi_align/arguments.h"
#include "multi_level_roi_align/cuda_kernel.h"
#include "tensorrt/op.h"

namespace visdeploy {
namespace {

enum Input { kRois, kBatchIndices, kFirstFeature };
constexpr double kLeastScale = 1e-30, kMostScale = 1e6;

class Plugin final : public trt::Op {
 public:
  explicit Plugin(const trt::Attributes& attributes) {
    const std::vector<double>& scales = attributes.values("spatial_scales");
    if (scales.size() > VD_ROI_ALIGN_LEVELS) {
      fail("MultiLevelRoiAlign", "attribute spatial_scales", std::to_string(scales.size()) + " scales",
           "at most " + std::to_string(VD_ROI_ALIGN_LEVELS));
    }
    params_.output_height = attributes.integer("output_height");
    params_.output_width = attributes.integer("output_width");
    params_.sampling_ratio = attributes.integer("sampling_ratio");
    params_.levels = static_cast<int64_t>(scales.size());
    params_.finest_scale = attributes.real("finest_scale");
    std::transform(scales.begin(), scales.end(), params_.spatial_scales,
                   [](double scale) { return static_cast<float>(scale); });
  }

  std::vector<trt::Dims> output_shapes(const std::vector<trt::Dims>& in, trt::DimArithmetic& dims) const override {
    const auto given = std::count_if(in.begin(), in.end(), [](const trt::Dims& shape) { return !shape.empty(); });
    if (given != kFirstFeature + params_.levels) {
      fail("MultiLevelRoiAlign", "number of features", std::to_string(given - kFirstFeature),
           std::to_string(params_.levels) + ", one per scale in spatial_scales");
    }
    return {{in[kRois][0], in[kFirstFeature][1], dims.constant(params_.output_height),
             dims.constant(params_.output_width)}};
  }

  void run(const trt::Call& call) const override {
    const auto& in = call.inputs;
    MultiLevelRoiAlignCall checked =
        check_multi_level_roi_align(in[kRois], in[kBatchIndices], in.data() + kFirstFeature, &params_, false);
    check_output(checked, call.outputs[0]);
    multi_level_roi_align_cuda_forward(checked.op, checked.dtype, call.stream);
  }

 private:
  vd_roi_align_params params_ = {};
};

std::vector<trt::AttributeSpec> attribute_specs() {
  trt::AttributeSpec height = {"output_height", 1, {}, 1, kRoiAlignBins};
  trt::AttributeSpec width = {"output_width", 1, {}, 1, kRoiAlignBins};
  trt::AttributeSpec ratio = {"sampling_ratio", 1, {}, 0, kRoiAlignSamples};
  trt::AttributeSpec scales = {"spatial_scales", trt::kAnyLength, {}, kLeastScale, kMostScale};
  trt::AttributeSpec finest = {"finest_scale", 1, {}, kLeastScale, kMostScale};
  scales.real = finest.real = true;
  std::vector<trt::AttributeSpec> specs = {height, width, ratio, scales, finest};
  for (trt::AttributeSpec& spec : specs) spec.required = true;
  return specs;
}

std::vector<trt::TensorSpec> inputs() {
  std::vector<trt::TensorSpec> specs = {{"rois", 2, {VD_FLOAT32}}, {"batch_indices", 1, {VD_INT64}}};
  specs.push_back({"features[0]", 4, trt::value_dtypes()});
  for (int level = 1; level < kRoiAlignLevels; ++level) {
    specs.push_back({"features[" + std::to_string(level) + "]", 4, {}, kFirstFeature});
  }
  return specs;
}

}  // namespace

const trt::OpType& multi_level_roi_align_tensorrt() {
  static const trt::OpType type = {
      "MultiLevelRoiAlign",
      attribute_specs(),
      inputs(),
      kFirstFeature + 1,
      {{"output", 4, {}, kFirstFeature}},
      [](const trt::Attributes& attributes) -> std::unique_ptr<const trt::Op> {
        return std::make_unique<Plugin>(attributes);
      },
  };
  return type;
}

}  // namespace visdeploy
