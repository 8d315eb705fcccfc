// TensorRT binding: MaskedConv.

#include "core/error.h"
#include "masked_conv/arguments.h"
#include "masked_conv/cuda_kernel.h"
#include "tensorrt/convolution.h"

namespace visdeploy {
namespace {

enum Input { kX, kMask, kWeight, kBias };

class Plugin final : public trt::Op {
 public:
  explicit Plugin(const trt::Attributes& attributes) : attributes_(attributes) {
    const std::vector<int64_t> stride = attributes.integers("strides"), pads = attributes.integers("pads"),
                               dilation = attributes.integers("dilations");
    if (pads[0] != pads[2] || pads[1] != pads[3]) {
      fail("MaskedConv", "attribute pads", shape_text(pads), "the same at the beginning and the end of each axis");
    }
    params_ = {{stride[0], stride[1]}, {pads[0], pads[1]}, {dilation[0], dilation[1]}, attributes.integer("group")};
  }

  std::vector<trt::Dims> output_shapes(const std::vector<trt::Dims>& in, trt::DimArithmetic& dims) const override {
    const trt::Dims &x = in[kX], &weight = in[kWeight];
    return {{x[0], weight[0], trt::convolution_size(attributes_, 0, x[2], weight[2], dims),
             trt::convolution_size(attributes_, 1, x[3], weight[3], dims)}};
  }

  void run(const trt::Call& call) const override {
    const auto& in = call.inputs;
    MaskedConvCall checked = check_masked_conv(in[kX], in[kMask], in[kWeight], &params_);
    check_forward(checked, in[kBias], call.outputs[0]);
    masked_conv_cuda_forward(checked.op, checked.dtype, call.stream);
  }

 private:
  trt::Attributes attributes_;
  vd_masked_conv_params params_;
};

}  // namespace

const trt::OpType& masked_conv_tensorrt() {
  static const trt::OpType type = {
      "MaskedConv",
      trt::convolution_attributes(),
      {{"x", 4, trt::value_dtypes()},
       {"mask", 3, {VD_FLOAT32, VD_BOOL}, kX},
       {"weight", 4, {}, kX},
       {"bias", 1, {}, kX}},
      4,
      {{"output", 4, {}, kX}},
      [](const trt::Attributes& attributes) -> std::unique_ptr<const trt::Op> {
        return std::make_unique<Plugin>(attributes);
      },
  };
  return type;
}

}  // namespace visdeploy
