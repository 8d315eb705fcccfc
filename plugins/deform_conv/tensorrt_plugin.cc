// TensorRT binding: DeformConv, for nodes of our domain and for those of the standard op (opset 19 and later), which
// TensorRT's parser looks up by the same name.

#include "core/error.h"
#include "deform_conv/arguments.h"
#include "deform_conv/cuda_kernel.h"
#include "tensorrt/convolution.h"

namespace visdeploy {
namespace {

enum Input { kX, kW, kOffset, kB, kMask };

class Plugin final : public trt::Op {
 public:
  explicit Plugin(const trt::Attributes& attributes) : attributes_(attributes) {
    const std::vector<int64_t> stride = attributes.integers("strides"), pads = attributes.integers("pads"),
                               dilation = attributes.integers("dilations");
    params_ = {{stride[0], stride[1]},
               {pads[0], pads[1], pads[2], pads[3]},
               {dilation[0], dilation[1]},
               attributes.integer("group"),
               attributes.integer("offset_group")};
  }

  std::vector<trt::Dims> output_shapes(const std::vector<trt::Dims>& in, trt::DimArithmetic& dims) const override {
    const trt::Dims &x = in[kX], &w = in[kW];
    return {{x[0], w[0], trt::convolution_size(attributes_, 0, x[2], w[2], dims),
             trt::convolution_size(attributes_, 1, x[3], w[3], dims)}};
  }

  void run(const trt::Call& call) const override {
    const auto& in = call.inputs;
    check_kernel_shape(*in[kW]);
    DeformConvCall checked = check_deform_conv(in[kX], in[kOffset], in[kW], in[kMask], &params_);
    check_forward(checked, in[kB], call.outputs[0]);
    deform_conv_cuda_forward(checked.op, checked.dtype, call.stream);
  }

 private:
  void check_kernel_shape(const vd_tensor& weight) const {
    const std::vector<int64_t> stated = attributes_.integers("kernel_shape");
    const Shape shape(weight.shape, weight.shape + weight.rank);
    if (stated.empty() || (shape[2] == stated[0] && shape[3] == stated[1])) return;
    fail("deform_conv", "attribute kernel_shape", shape_text(stated), "that of tensor weight " + shape_text(shape));
  }

  trt::Attributes attributes_;
  vd_deform_conv_params params_;
};

std::vector<trt::AttributeSpec> attribute_specs() {
  std::vector<trt::AttributeSpec> specs = trt::convolution_attributes();
  specs.push_back({"offset_group", 1, {1}, 1});
  specs.push_back({"kernel_shape", 2, {}, 1});
  return specs;
}

}  // namespace

const trt::OpType& deform_conv_tensorrt() {
  static const trt::OpType type = {
      "DeformConv",
      attribute_specs(),
      {{"X", 4, trt::value_dtypes()},
       {"W", 4, {}, kX},
       {"offset", 4, {}, kX},
       {"B", 1, {}, kX},  // optional in ONNX, but TensorRT knows no inputs left out before the last
       {"mask", 4, {}, kX}},
      3,
      {{"Y", 4, {}, kX}},
      [](const trt::Attributes& attributes) -> std::unique_ptr<const trt::Op> {
        return std::make_unique<Plugin>(attributes);
      },
  };
  return type;
}

}  // namespace visdeploy
