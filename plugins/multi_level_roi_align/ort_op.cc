// ONNX Runtime binding: visdeploy::MultiLevelRoiAlign on the CPU provider, threaded with ONNX Runtime's pool, and on
// the CUDA provider.

#include <algorithm>
#include <string>
#include <vector>

#include "multi_level_roi_align/arguments.h"
#include "multi_level_roi_align/cpu_kernel.h"
#include "multi_level_roi_align/cuda_kernel.h"
#include "ort/custom_op.h"

namespace visdeploy {
namespace {

constexpr size_t kFirstFeature = 2;  // after rois and batch_indices

void run_on_cpu(const Ort::KernelContext& context, const MultiLevelRoiAlignCall& call) {
  const RoiAlignWork work(call.op, call.dtype);
  const auto kernel = multi_level_roi_align_cpu().forward[call.dtype];
  ort::parallel_for(context, ort::Tasks(call.op.rois, work.tap_cost),
                    [&](int64_t begin, int64_t end, int64_t) { work.find_taps(begin, end); });
  const ort::Tasks tasks(work.items, work.item_cost);
  std::vector<double> scratch_of_tasks(static_cast<size_t>(work.scratch * tasks.count));
  ort::parallel_for(context, tasks, [&](int64_t begin, int64_t end, int64_t task) {
    kernel(work.job, begin, end, scratch_of_tasks.data() + task * work.scratch);
  });
}

template <ort::Provider kProvider>
struct Kernel : ort::KernelBase<Kernel<kProvider>> {
  explicit Kernel(const Ort::ConstKernelInfo& info) {
    params.output_height = info.GetAttribute<int64_t>("output_height");
    params.output_width = info.GetAttribute<int64_t>("output_width");
    params.sampling_ratio = info.GetAttribute<int64_t>("sampling_ratio");
    params.finest_scale = info.GetAttribute<float>("finest_scale");
    const std::vector<float> scales = info.GetAttributes<float>("spatial_scales");
    params.levels = static_cast<int64_t>(scales.size());
    std::copy_n(scales.begin(), std::min<size_t>(scales.size(), VD_ROI_ALIGN_LEVELS), params.spatial_scales);
  }

  void compute(const Ort::KernelContext& context) const {
    std::vector<ort::TensorView> in;
    for (size_t i = 0; i < context.GetInputCount(); ++i) in.push_back(ort::input(context, i));
    if (in.size() > kFirstFeature + kRoiAlignLevels) {
      fail("multi_level_roi_align", "number of features", std::to_string(in.size() - kFirstFeature),
           "1 to " + std::to_string(kRoiAlignLevels));
    }
    const vd_tensor* features[kRoiAlignLevels] = {};
    for (size_t i = kFirstFeature; i < in.size(); ++i) features[i - kFirstFeature] = in[i].get();
    MultiLevelRoiAlignCall call = check_multi_level_roi_align(in[0].get(), in[1].get(), features, &params, false);
    const MultiLevelRoiAlign& op = call.op;
    // On CUDA they are in device memory, and the kernel leaves out boxes of images that are not there.
    if constexpr (kProvider == ort::Provider::kCpu) check_batch_indices(op);
    ort::TensorView out = ort::output(context, 0, {op.rois, op.channels, op.output_height, op.output_width});
    check_output(call, out.get());
    if constexpr (kProvider == ort::Provider::kCuda) {
      multi_level_roi_align_cuda_forward(op, call.dtype, ort::cuda_stream(context));
    } else {
      run_on_cpu(context, call);
    }
  }

  vd_roi_align_params params = {};
};

template <ONNXTensorElementDataType kType, ort::Provider kProvider>
struct Op : ort::CustomOp<Op<kType, kProvider>, Kernel<kProvider>, kProvider> {
  const char* GetName() const { return "MultiLevelRoiAlign"; }
  size_t GetInputTypeCount() const { return kFirstFeature + 1; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    constexpr auto kBoxes = kType == ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE ? kType : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    return index == 0 ? kBoxes : index == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : kType;
  }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t index) const {
    return index < kFirstFeature ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_VARIADIC;
  }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kType; }

  static void infer(OrtShapeInferContext* context) {
    const std::vector<ort::Dim> rois = ort::input_dims(context, 0), map = ort::input_dims(context, kFirstFeature);
    if (rois.size() != 2 || map.size() != 4) return;
    ort::set_output_dims(context, 0,
                         {rois[0], map[1], attribute(context, "output_height"), attribute(context, "output_width")},
                         ort::input_type(context, kFirstFeature));
  }

 private:
  static ort::Dim attribute(OrtShapeInferContext* context, const char* name) {
    const OrtApi& api = Ort::GetApi();
    const OrtOpAttr* found = nullptr;
    Ort::ThrowOnError(api.ShapeInferContext_GetAttribute(context, name, &found));
    ort::Dim dim;
    size_t size = 0;
    Ort::ThrowOnError(api.ReadOpAttr(found, ORT_OP_ATTR_INT, &dim.size, sizeof(dim.size), &size));
    return dim;
  }
};

}  // namespace

std::vector<const OrtCustomOp*> multi_level_roi_align_ort_ops() {
  return ort::for_types<Op, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
                        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16>();
}

}  // namespace visdeploy
