// TensorRT binding: MSDeformAttn and MSDeformAttnFused. No attributes: all they need to know is in their tensors'
// shapes. The two index tensors stay on the device, where the kernel reads and checks them.

#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda_kernel.h"
#include "tensorrt/op.h"

namespace visdeploy {
namespace {

enum Input { kValue, kSpatialShapes, kLevelStartIndex, kLocations, kWeights };
enum FusedInput { kReferences = 3, kOffsets, kLogits };

trt::Dims output_shape(const trt::Dims& value, const trt::Dims& locations, trt::DimArithmetic& arithmetic) {
  return {value[0], locations[1], arithmetic.multiply(value[2], value[3])};
}

void run_checked(const MsDeformAttnInputs& inputs, const trt::Call& call) {
  MsDeformAttnCall checked = check_ms_deform_attn(inputs);
  check_forward(checked, call.outputs[0]);
  ms_deform_attn_cuda_forward(checked.op, checked.dtype, checked.points_dtype, call.stream);
}

struct Plain final : trt::Op {
  std::vector<trt::Dims> output_shapes(const std::vector<trt::Dims>& in, trt::DimArithmetic& dims) const override {
    return {output_shape(in[kValue], in[kLocations], dims)};
  }

  void run(const trt::Call& call) const override {
    const auto& in = call.inputs;
    run_checked({in[kValue], in[kSpatialShapes], in[kLevelStartIndex], in[kLocations], in[kWeights]}, call);
  }
};

struct Fused final : trt::Op {
  std::vector<trt::Dims> output_shapes(const std::vector<trt::Dims>& in, trt::DimArithmetic& dims) const override {
    return {output_shape(in[kValue], in[kOffsets], dims)};
  }

  void run(const trt::Call& call) const override {
    const auto& in = call.inputs;
    run_checked(
        {in[kValue], in[kSpatialShapes], in[kLevelStartIndex], in[kOffsets], in[kLogits], in[kReferences], true}, call);
  }
};

template <typename Form>
std::unique_ptr<const trt::Op> create(const trt::Attributes&) {
  return std::make_unique<Form>();
}

}  // namespace

const trt::OpType& ms_deform_attn_tensorrt() {
  static const trt::OpType type = {
      "MSDeformAttn",
      {},
      {{"value", 4, trt::value_dtypes()},
       {"spatial_shapes", 2, trt::index_dtypes()},
       {"level_start_index", 1, {}, kSpatialShapes},
       // Half-precision coordinates miss the pixel on large maps: points may be float32 beside half-precision values.
       {"sampling_locations", 6, {VD_FLOAT32}, kValue},
       {"attention_weights", 5, {}, kLocations}},
      5,
      {{"output", 3, {}, kValue}},
      create<Plain>,
  };
  return type;
}

const trt::OpType& ms_deform_attn_fused_tensorrt() {
  static const trt::OpType type = {
      "MSDeformAttnFused",
      {},
      {{"value", 4, trt::value_dtypes()},
       {"spatial_shapes", 2, trt::index_dtypes()},
       {"level_start_index", 1, {}, kSpatialShapes},
       // Offsets are a few pixels and may be halves; references are shares of the whole map and may not.
       {"reference_points", 4, {VD_FLOAT32}},
       {"sampling_offsets", 6, {VD_FLOAT32}, kValue},
       {"attention_logits", 5, {}, kOffsets}},
      6,
      {{"output", 3, {}, kValue}},
      create<Fused>,
  };
  return type;
}

}  // namespace visdeploy
