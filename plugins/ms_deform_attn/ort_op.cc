// ONNX Runtime binding: visdeploy::MSDeformAttn and visdeploy::MSDeformAttnFused on the CPU provider, threaded with
// ONNX Runtime's pool, and on the CUDA provider.

#include <memory>
#include <vector>

#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu_forward.h"
#include "ms_deform_attn/cuda_kernel.h"
#include "ort/custom_op.h"

namespace visdeploy {
namespace {

using ort::Provider;
using Type = ONNXTensorElementDataType;
constexpr Type kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kDouble = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
constexpr Type kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, kBFloat16 = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;

void run_on_cpu(const Ort::KernelContext& context, const MsDeformAttnCall& call) {
  ms_deform_attn_cpu_forward(call, [&](int64_t items, int64_t cost, int64_t scratch_bytes, const CpuRange& body) {
    const ort::Tasks tasks(items, cost);
    const std::unique_ptr<char[]> scratch(new char[static_cast<size_t>(scratch_bytes * tasks.count)]);
    ort::parallel_for(context, tasks, [&](int64_t begin, int64_t end, int64_t task) {
      body(begin, end, scratch.get() + task * scratch_bytes);
    });
  });
}

template <bool kFused, Provider kProvider>
struct Kernel : ort::KernelBase<Kernel<kFused, kProvider>> {
  explicit Kernel(const Ort::ConstKernelInfo&) {}

  void compute(const Ort::KernelContext& context) const {
    std::vector<ort::TensorView> in;
    for (size_t i = 0; i < (kFused ? 6 : 5); ++i) in.push_back(ort::input(context, i));
    MsDeformAttnInputs inputs = {in[0].get(), in[1].get(), in[2].get(), in[3].get(), in[4].get()};
    if constexpr (kFused) {
      inputs = {in[0].get(), in[1].get(), in[2].get(), in[4].get(), in[5].get(), in[3].get(), true};
    }
    MsDeformAttnCall call = check_ms_deform_attn(inputs);
    if constexpr (kProvider == Provider::kCpu) read_geometry(call);
    ort::TensorView out = ort::output(context, 0, {call.op.batch, call.op.queries, call.op.heads * call.op.channels});
    check_forward(call, out.get());
    if constexpr (kProvider == Provider::kCuda) {
      ms_deform_attn_cuda_forward(call.op, call.dtype, call.points_dtype, ort::cuda_stream(context));
    } else {
      run_on_cpu(context, call);
    }
  }
};

// kPoints: of locations and weights, or of offsets and logits. kReferences: fused only.
template <bool kFused, Type kValue, Type kPoints, Type kReferences, Provider kProvider>
struct Attention
    : ort::CustomOp<Attention<kFused, kValue, kPoints, kReferences, kProvider>, Kernel<kFused, kProvider>, kProvider> {
  const char* GetName() const { return kFused ? "MSDeformAttnFused" : "MSDeformAttn"; }
  size_t GetInputTypeCount() const { return kFused ? 6 : 5; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    if (index == 0) return kValue;
    if (index <= 2) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    return kFused && index == 3 ? kReferences : kPoints;
  }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kValue; }

  static void infer(OrtShapeInferContext* context) {
    const std::vector<ort::Dim> value = ort::input_dims(context, 0), points = ort::input_dims(context, kFused ? 4 : 3);
    if (value.size() != 4 || points.size() != 6) return;
    ort::set_output_dims(context, 0, {value[0], points[1], ort::product(value[2], value[3])},
                         ort::input_type(context, 0));
  }
};

template <Type kType, Provider kProvider>
using Plain = Attention<false, kType, kType, kType, kProvider>;
template <Type kType, Provider kProvider>
using PlainWithFloatPoints = Attention<false, kType, kFloat, kFloat, kProvider>;
template <Type kType, Provider kProvider>
using Fused = Attention<true, kType, kType, kType, kProvider>;
template <Type kType, Provider kProvider>
using FusedWithFloatReferences = Attention<true, kType, kType, kFloat, kProvider>;
template <Type kType, Provider kProvider>
using FusedWithFloatPoints = Attention<true, kType, kFloat, kFloat, kProvider>;

}  // namespace

std::vector<const OrtCustomOp*> ms_deform_attn_ort_ops() {
  std::vector<const OrtCustomOp*> all;
  for (const auto& ops : {ort::for_types<Plain, kFloat, kDouble, kHalf, kBFloat16>(),
                          ort::for_types<PlainWithFloatPoints, kHalf, kBFloat16>(),
                          ort::for_types<Fused, kFloat, kDouble, kHalf, kBFloat16>(),
                          ort::for_types<FusedWithFloatReferences, kHalf, kBFloat16>(),
                          ort::for_types<FusedWithFloatPoints, kHalf, kBFloat16>()}) {
    all.insert(all.end(), ops.begin(), ops.end());
  }
  return all;
}

}  // namespace visdeploy
