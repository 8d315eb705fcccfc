// TensorRT binding: MSDeformAttn. No attributes: all it needs to know is in the shapes of its tensors.

#include <cuda_runtime_api.h>

#include "core/error.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda_kernel.h"
#include "tensorrt/op.h"

namespace visdeploy {
namespace {

enum Input { kValue, kSpatialShapes, kLevelStartIndex, kSamplingLocations, kAttentionWeights };

// The index tensors as the checks read them: int64 in host memory.
class HostIndices {
 public:
  HostIndices(const vd_tensor& device, cudaStream_t stream) : view_(device) {
    const TensorCheck check("MSDeformAttn", "index tensor", &device, device.rank);
    check.has_dtype({VD_INT64, VD_INT32});
    const size_t size = device.dtype == VD_INT64 ? sizeof(int64_t) : sizeof(int32_t);
    std::vector<char> raw(static_cast<size_t>(check.elements()) * size);
    copy(raw.data(), device.data, raw.size(), stream);
    for (size_t i = 0; i < raw.size(); i += size) {
      values_.push_back(size == sizeof(int64_t) ? *reinterpret_cast<const int64_t*>(raw.data() + i)
                                                : *reinterpret_cast<const int32_t*>(raw.data() + i));
    }
    view_.dtype = VD_INT64;
    view_.data = values_.data();
  }

  const vd_tensor* get() const { return &view_; }

 private:
  static void copy(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    cudaError_t status = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream);
    if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
    if (status != cudaSuccess) fail("MSDeformAttn", "copy of the geometry", cudaGetErrorString(status), "success");
  }

  std::vector<int64_t> values_;
  vd_tensor view_;
};

struct Plugin final : trt::Op {
  std::vector<trt::Dims> output_shapes(const std::vector<trt::Dims>& inputs,
                                       trt::DimArithmetic& arithmetic) const override {
    const trt::Dims &value = inputs[kValue], &locations = inputs[kSamplingLocations];
    return {{value[0], locations[1], arithmetic.multiply(value[2], value[3])}};
  }

  void run(const trt::Call& call) const override {
    const auto& in = call.inputs;
    const auto stream = static_cast<cudaStream_t>(call.stream);
    const HostIndices shapes(*in[kSpatialShapes], stream), starts(*in[kLevelStartIndex], stream);
    MsDeformAttnCall checked = check_ms_deform_attn(in[kValue], shapes.get(), starts.get(), in[kSamplingLocations],
                                                    in[kAttentionWeights]);
    check_forward(checked, call.outputs[0]);
    ms_deform_attn_cuda_forward(checked.op, checked.dtype, call.stream);
  }
};

std::unique_ptr<const trt::Op> create(const trt::Attributes&) { return std::make_unique<Plugin>(); }

}  // namespace

const trt::OpType& ms_deform_attn_tensorrt() {
  static const trt::OpType type = {
      "MSDeformAttn",
      {},
      {{"value", 4, trt::value_dtypes()},
       {"spatial_shapes", 2, trt::index_dtypes()},
       {"level_start_index", 1, {}, kSpatialShapes},
       {"sampling_locations", 6, {}, kValue},
       {"attention_weights", 5, {}, kValue}},
      5,
      {{"output", 3, {}, kValue}},
      create,
  };
  return type;
}

}  // namespace visdeploy
