// ONNX Runtime binding: visdeploy::DeformConv on the CPU provider, threaded with ONNX Runtime's pool, and on the CUDA
// provider. Inputs and attributes are those of the standard op, with the bias always there.

#include <array>
#include <exception>
#include <mutex>
#include <optional>
#include <vector>

#include "core/aligned_buffer.h"
#include "deform_conv/arguments.h"
#include "deform_conv/cpu_dispatch.h"
#include "deform_conv/cuda_kernel.h"
#include "ort/custom_op.h"

namespace visdeploy {
namespace {

enum Input : size_t { kX, kW, kOffset, kB, kMask, kInputs };

// The integers of an attribute, or what they are when the node does not have it.
std::vector<int64_t> integers(const Ort::ConstKernelInfo& info, const char* name, std::vector<int64_t> absent) {
  size_t size = 0;
  const Ort::Status status(Ort::GetApi().KernelInfoGetAttributeArray_int64(info, name, nullptr, &size));
  if (!status.IsOK()) return absent;
  if (size != absent.size()) {
    fail("deform_conv", std::string("attribute ") + name, std::to_string(size) + " numbers",
         std::to_string(absent.size()));
  }
  Ort::ThrowOnError(Ort::GetApi().KernelInfoGetAttributeArray_int64(info, name, absent.data(), &size));
  return absent;
}

int64_t integer(const Ort::ConstKernelInfo& info, const char* name) {
  int64_t value = 1;
  const Ort::Status status(Ort::GetApi().KernelInfoGetAttribute_int64(info, name, &value));
  return status.IsOK() ? value : 1;
}

vd_deform_conv_params params_of(const Ort::ConstKernelInfo& info) {
  const std::vector<int64_t> stride = integers(info, "strides", {1, 1});
  const std::vector<int64_t> padding = integers(info, "pads", {0, 0, 0, 0});
  const std::vector<int64_t> dilation = integers(info, "dilations", {1, 1});
  return {{stride[0], stride[1]},
          {padding[0], padding[1], padding[2], padding[3]},
          {dilation[0], dilation[1]},
          integer(info, "group"),
          integer(info, "offset_group")};
}

Parallel in_pool(const Ort::KernelContext& context) {
  return [&context](int64_t items, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    std::mutex mutex;
    std::exception_ptr error;
    ort::parallel_for(context, ort::Tasks(items, cost), [&](int64_t begin, int64_t end, int64_t) {
      try {
        body(begin, end);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        error = std::current_exception();
      }
    });
    if (error) std::rethrow_exception(error);
  };
}

template <ort::Provider kProvider>
struct Kernel : ort::KernelBase<Kernel<kProvider>> {
  explicit Kernel(const Ort::ConstKernelInfo& info) : params(params_of(info)) {
    if constexpr (kProvider == ort::Provider::kCpu) {
      int constant = 0;
      const Ort::ConstValue weight = info.GetTensorConstantInput(kW, &constant);
      if (constant != 0) pack(weight);
    }
  }

  void compute(const Ort::KernelContext& context) const {
    std::array<ort::TensorView, kMask> in = {ort::input(context, kX), ort::input(context, kW),
                                             ort::input(context, kOffset), ort::input(context, kB)};
    std::optional<ort::TensorView> mask;
    if (context.GetInputCount() > kMask && context.GetInput(kMask) != nullptr) mask = ort::input(context, kMask);
    DeformConvCall call =
        check_deform_conv(in[kX].get(), in[kOffset].get(), in[kW].get(), mask ? mask->get() : nullptr, &params);
    const DeformConv& op = call.op;
    ort::TensorView out = ort::output(context, 0, {op.batch, op.outputs, op.out_height, op.out_width});
    check_forward(call, in[kB].get(), out.get());
    if constexpr (kProvider == ort::Provider::kCuda) {
      deform_conv_cuda_forward(op, call.dtype, ort::cuda_stream(context));
    } else {
      deform_conv_cpu_forward(op, call.dtype, packed ? packed->get() : nullptr, in_pool(context));
    }
  }

 private:
  // Weights that never change are packed once, if they are right; if not, compute says what is wrong with them.
  void pack(const Ort::ConstValue& weight) {
    const Ort::TensorTypeAndShapeInfo info = weight.GetTensorTypeAndShapeInfo();
    const std::vector<int64_t> shape = info.GetShape();
    if (info.GetElementCount() == 0 || shape.size() != 4) return;
    if (params.groups < 1 || shape[0] % params.groups != 0) return;
    DeformConv op;
    op.weight = weight.GetTensorRawData();
    op.groups = params.groups;
    op.outputs = shape[0];
    op.channels = shape[1] * params.groups;
    op.kernel[0] = shape[2];
    op.kernel[1] = shape[3];
    const int dtype = ort::TensorView(nullptr, shape, info.GetElementType()).get()->dtype;
    packed.emplace(deform_conv_packed_bytes(op, dtype));
    deform_conv_pack(op, dtype, packed->get(),
                     [](int64_t items, int64_t, const auto& body) { body(int64_t{0}, items); });
  }

  vd_deform_conv_params params;
  std::optional<AlignedBuffer> packed;
};

template <ONNXTensorElementDataType kType, ort::Provider kProvider>
struct DeformConvOp : ort::CustomOp<DeformConvOp<kType, kProvider>, Kernel<kProvider>, kProvider> {
  const char* GetName() const { return "DeformConv"; }
  size_t GetInputTypeCount() const { return kInputs; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t) const { return kType; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kType; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t index) const {
    return index == kMask ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  }

  static void infer(OrtShapeInferContext* context) {
    const std::vector<ort::Dim> input = ort::input_dims(context, kX), weight = ort::input_dims(context, kW);
    const std::vector<ort::Dim> offset = ort::input_dims(context, kOffset);
    if (input.size() != 4 || weight.size() != 4 || offset.size() != 4) return;
    ort::set_output_dims(context, 0, {input[0], weight[0], offset[2], offset[3]}, ort::input_type(context, kX));
  }
};

}  // namespace

std::vector<const OrtCustomOp*> deform_conv_ort_ops() {
  return ort::for_types<DeformConvOp, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
                        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16>();
}

}  // namespace visdeploy
