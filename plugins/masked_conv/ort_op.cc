// ONNX Runtime binding: visdeploy::MaskedConv on the CPU provider, threaded with ONNX Runtime's pool, and on the CUDA
// provider.

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "core/tensor.h"
#include "masked_conv/arguments.h"
#include "masked_conv/cpu_run.h"
#include "masked_conv/cuda_kernel.h"
#include "ort/custom_op.h"

namespace visdeploy {
namespace {

// An attribute that is a list, or the default when the node has none.
std::vector<int64_t> attribute(const Ort::ConstKernelInfo& info, const char* name, std::vector<int64_t> fallback) {
  size_t count = 0;
  const Ort::Status missing(Ort::GetApi().KernelInfoGetAttributeArray_int64(info, name, nullptr, &count));
  if (!missing.IsOK()) return fallback;
  std::vector<int64_t> values = info.GetAttributes<int64_t>(name);
  if (values.size() != fallback.size()) {
    fail("masked_conv", std::string("attribute ") + name, shape_text(values),
         std::to_string(fallback.size()) + " numbers");
  }
  return values;
}

vd_masked_conv_params params_of(const Ort::ConstKernelInfo& info) {
  const std::vector<int64_t> strides = attribute(info, "strides", {1, 1}),
                             dilations = attribute(info, "dilations", {1, 1});
  const std::vector<int64_t> pads = attribute(info, "pads", {0, 0, 0, 0});
  if (pads[0] != pads[2] || pads[1] != pads[3]) {
    fail("masked_conv", "attribute pads", shape_text(pads), "the same at the beginning and the end of each axis");
  }
  int64_t groups = 1;
  const Ort::Status missing(Ort::GetApi().KernelInfoGetAttribute_int64(info, "group", &groups));
  if (!missing.IsOK()) groups = 1;
  return {{strides[0], strides[1]}, {pads[0], pads[1]}, {dilations[0], dilations[1]}, groups};
}

// Weights that are constant are packed once, when the kernel is created; what is wrong with them is said by compute().
std::optional<AlignedBuffer> pack_constant(const Ort::ConstKernelInfo& info, int64_t groups) {
  int constant = 0;
  const Ort::ConstValue value = info.GetTensorConstantInput(2, &constant);
  if (constant == 0) return std::nullopt;
  const Ort::TensorTypeAndShapeInfo type = value.GetTensorTypeAndShapeInfo();
  const Shape shape = type.GetShape();
  if (shape.size() != 4 || *std::min_element(shape.begin(), shape.end()) < 1) return std::nullopt;
  if (groups < 1 || shape[0] % groups != 0) return std::nullopt;
  ort::TensorView weight(const_cast<void*>(value.GetTensorRawData()), shape, type.GetElementType());
  MaskedConvCall call;
  call.dtype = weight.get()->dtype;
  call.op.outputs = shape[0], call.op.channels = shape[1] * groups, call.op.groups = groups;
  call.op.kernel[0] = shape[2], call.op.kernel[1] = shape[3];
  call.op.weight = weight.get()->data;
  return masked_conv_pack(call, [](int64_t items, int64_t, const auto& body) { body(0, items); });
}

ParallelRun run_in(const Ort::KernelContext& context) {
  return [&context](int64_t items, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    ort::parallel_for(context, ort::Tasks(items, cost), [&](int64_t begin, int64_t end, int64_t) { body(begin, end); });
  };
}

template <ort::Provider kProvider>
struct Kernel : ort::KernelBase<Kernel<kProvider>> {
  explicit Kernel(const Ort::ConstKernelInfo& info) : params_(params_of(info)) {
    if constexpr (kProvider == ort::Provider::kCpu) packed_ = pack_constant(info, params_.groups);
  }

  void compute(const Ort::KernelContext& context) const {
    std::array<ort::TensorView, 4> in = {ort::input(context, 0), ort::input(context, 1), ort::input(context, 2),
                                         ort::input(context, 3)};
    MaskedConvCall call = check_masked_conv(in[0].get(), in[1].get(), in[2].get(), &params_);
    const MaskedConv& op = call.op;
    ort::TensorView out = ort::output(context, 0, {op.batch, op.outputs, op.rows, op.columns});
    check_forward(call, in[3].get(), out.get());
    if constexpr (kProvider == ort::Provider::kCuda) {
      masked_conv_cuda_forward(op, call.dtype, ort::cuda_stream(context));
    } else {
      masked_conv_cpu_forward(call, packed_ ? packed_->get() : nullptr, run_in(context));
    }
  }

 private:
  vd_masked_conv_params params_;
  std::optional<AlignedBuffer> packed_;
};

template <ONNXTensorElementDataType kType, ONNXTensorElementDataType kMask, ort::Provider kProvider>
struct MaskedConvOp : ort::CustomOp<MaskedConvOp<kType, kMask, kProvider>, Kernel<kProvider>, kProvider> {
  const char* GetName() const { return "MaskedConv"; }
  size_t GetInputTypeCount() const { return 4; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t index) const { return index == 1 ? kMask : kType; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kType; }

  static void infer(OrtShapeInferContext* context) {
    const std::vector<ort::Dim> x = ort::input_dims(context, 0), mask = ort::input_dims(context, 1);
    const std::vector<ort::Dim> weight = ort::input_dims(context, 2);
    if (x.size() != 4 || mask.size() != 3 || weight.size() != 4) return;
    ort::set_output_dims(context, 0, {x[0], weight[0], mask[1], mask[2]}, ort::input_type(context, 0));
  }
};

// One registration per type of values and of mask.
template <ONNXTensorElementDataType kMask>
struct Masked {
  template <ONNXTensorElementDataType kType, ort::Provider kProvider>
  using Op = MaskedConvOp<kType, kMask, kProvider>;
};

}  // namespace

std::vector<const OrtCustomOp*> masked_conv_ort_ops() {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kBool = ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
  constexpr auto kDouble = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  constexpr auto kBrain = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  std::vector<const OrtCustomOp*> all;
  for (const auto& ops : {ort::for_types<Masked<kFloat>::Op, kFloat, kDouble, kHalf, kBrain>(),
                          ort::for_types<Masked<kBool>::Op, kFloat, kDouble, kHalf, kBrain>(),
                          ort::for_types<Masked<kDouble>::Op, kDouble>(), ort::for_types<Masked<kHalf>::Op, kHalf>(),
                          ort::for_types<Masked<kBrain>::Op, kBrain>()}) {
    all.insert(all.end(), ops.begin(), ops.end());
  }
  return all;
}

}  // namespace visdeploy
