// ONNX Runtime binding: visdeploy::MSDeformAttn on the CPU provider, threaded with ONNX Runtime's pool.

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu_kernel.h"
#include "ort/tensor_view.h"

namespace visdeploy {
namespace {

struct Kernel {
  OrtStatusPtr ComputeV2(OrtKernelContext* raw) noexcept {
    return ort_guarded([&] { compute(Ort::KernelContext(raw)); });
  }

  static void compute(const Ort::KernelContext& context) {
    std::array<ort::TensorView, 5> in = {ort::input(context, 0), ort::input(context, 1), ort::input(context, 2),
                                         ort::input(context, 3), ort::input(context, 4)};
    MsDeformAttnCall call = check_ms_deform_attn(in[0].get(), in[1].get(), in[2].get(), in[3].get(), in[4].get());
    ort::TensorView out =
        ort::output(context, 0, {call.op.batch, call.op.queries, call.op.heads * call.op.channels});
    check_forward(call, out.get());

    struct Job {
      const MsDeformAttn& op;
      void (*kernel)(const MsDeformAttn&, int64_t, int64_t, void*);
      int64_t rows, rows_per_task, scratch;
      std::vector<double> scratch_of_tasks;
    };
    const int64_t rows = call.op.batch * call.op.queries;
    // Tasks of about a tenth of a millisecond: enough of them to even out the threads, few enough to cost nothing.
    const int64_t rows_per_task = std::clamp<int64_t>((1 << 20) / row_cost(call.op), 1, std::max<int64_t>(rows, 1));
    const int64_t tasks = (rows + rows_per_task - 1) / rows_per_task;
    if (tasks == 0) return;
    const int64_t scratch = ms_deform_attn_scratch(call.op) / static_cast<int64_t>(sizeof(double));
    Job job = {call.op, ms_deform_attn_cpu().forward[call.dtype], rows, rows_per_task, scratch, {}};
    job.scratch_of_tasks.resize(static_cast<size_t>(scratch * tasks));
    context.ParallelFor(
        [](void* data, size_t task) {
          Job& job = *static_cast<Job*>(data);
          const int64_t begin = static_cast<int64_t>(task) * job.rows_per_task;
          job.kernel(job.op, begin, std::min(begin + job.rows_per_task, job.rows),
                     job.scratch_of_tasks.data() + static_cast<int64_t>(task) * job.scratch);
        },
        static_cast<size_t>(tasks), 0, &job);
  }
};

// One registration per value type; ONNX Runtime joins those of one name into one op.
template <ONNXTensorElementDataType kType>
struct MSDeformAttn : Ort::CustomOpBase<MSDeformAttn<kType>, Kernel, true> {
  const char* GetName() const { return "MSDeformAttn"; }
  size_t GetInputTypeCount() const { return 5; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    return index == 1 || index == 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : kType;
  }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kType; }
  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo*, void** kernel) const noexcept {
    return ort_guarded([&] { *kernel = new Kernel; });
  }

  static Ort::Status InferOutputShape(Ort::ShapeInferContext& context) {
    const auto& value = context.GetInputShape(0);
    const auto& locations = context.GetInputShape(3);
    if (value.size() != 4 || locations.size() != 6) return Ort::Status(nullptr);
    const bool known = value[2].IsInt() && value[3].IsInt() && value[2].AsInt() > 0 && value[3].AsInt() > 0;
    // An unknown number of output channels has no name of its own in the graph; leave the shape to run time then.
    if (!known) return Ort::Status(nullptr);
    return context.SetOutputShape(0, {value[0], locations[1], {value[2].AsInt() * value[3].AsInt()}}, kType);
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
