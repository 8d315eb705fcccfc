// ONNX Runtime binding: visdeploy::MSDeformAttn on the CPU provider, threaded with ONNX Runtime's pool.

#include <array>
#include <vector>

#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu_kernel.h"
#include "ort/custom_op.h"

namespace visdeploy {
namespace {

struct Kernel : ort::KernelBase<Kernel> {
  explicit Kernel(const Ort::ConstKernelInfo&) {}

  void compute(const Ort::KernelContext& context) const {
    std::array<ort::TensorView, 5> in = {ort::input(context, 0), ort::input(context, 1), ort::input(context, 2),
                                         ort::input(context, 3), ort::input(context, 4)};
    MsDeformAttnCall call = check_ms_deform_attn({in[0].get(), in[1].get(), in[2].get(), in[3].get(), in[4].get()});
    read_geometry(call);
    ort::TensorView out = ort::output(context, 0, {call.op.batch, call.op.queries, call.op.heads * call.op.channels});
    check_forward(call, out.get());

    const ort::Tasks tasks(call.op.batch * call.op.queries, row_cost(call.op));
    const int64_t scratch = ms_deform_attn_scratch(call.op) / static_cast<int64_t>(sizeof(double));
    std::vector<double> scratch_of_tasks(static_cast<size_t>(scratch * tasks.count));
    const auto kernel = ms_deform_attn_cpu().forward[call.dtype];
    ort::parallel_for(context, tasks, [&](int64_t begin, int64_t end, int64_t task) {
      kernel(call.op, begin, end, scratch_of_tasks.data() + task * scratch);
    });
  }
};

// One registration per value type; ONNX Runtime joins those of one name into one op.
template <ONNXTensorElementDataType kType>
struct MSDeformAttn : ort::CustomOp<MSDeformAttn<kType>, Kernel> {
  const char* GetName() const { return "MSDeformAttn"; }
  size_t GetInputTypeCount() const { return 5; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    return index == 1 || index == 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : kType;
  }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kType; }

  static void infer(OrtShapeInferContext* context) {
    const std::vector<ort::Dim> value = ort::input_dims(context, 0), locations = ort::input_dims(context, 3);
    if (value.size() != 4 || locations.size() != 6) return;
    ort::set_output_dims(context, 0, {value[0], locations[1], ort::product(value[2], value[3])}, kType);
  }
};

}  // namespace

std::vector<const OrtCustomOp*> ms_deform_attn_ort_ops() {
  static const MSDeformAttn<ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT> single;
  static const MSDeformAttn<ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE> wide;
  static const MSDeformAttn<ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16> half;
  static const MSDeformAttn<ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16> brain;
  return {&single, &wide, &half, &brain};
}

}  // namespace visdeploy
