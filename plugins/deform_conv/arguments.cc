#include "deform_conv/arguments.h"

#include <limits>
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "deform_conv";
constexpr int64_t kLimit =
    std::numeric_limits<int32_t>::max();  // of sizes and parameters, so that no product overflows

void check_range(const char* name, const Shape& values, int64_t least) {
  for (const int64_t value : values) {
    if (value >= least && value <= kLimit) continue;
    fail(kOp, "parameter " + std::string(name), shape_text(values),
         "each at least " + std::to_string(least) + " and below 2^31");
  }
}

void check_divides(const char* parameter, int64_t divisor, const char* tensor, const char* axis, int64_t size) {
  if (divisor >= 1 && size % divisor == 0) return;
  fail(kOp, "parameter " + std::string(parameter), std::to_string(divisor),
       "a divisor of tensor " + std::string(tensor) + "'s " + std::to_string(size) + " " + axis);
}

void check_params(const vd_deform_conv_params* params) {
  if (params == nullptr) fail(kOp, "parameters", "a null pointer", "a structure");
  check_range("stride", {params->stride, params->stride + 2}, 1);
  check_range("padding", {params->padding, params->padding + 4}, 0);
  check_range("dilation", {params->dilation, params->dilation + 2}, 1);
}

int64_t output_size(const DeformConv& op, const vd_deform_conv_params& params, int axis) {
  const int64_t size = axis == 0 ? op.height : op.width;
  const int64_t padded = size + params.padding[axis] + params.padding[axis + 2];
  const int64_t reach = op.dilation[axis] * (op.kernel[axis] - 1) + 1;
  if (reach > padded) {
    fail(kOp, std::string("tensor weight, kernel ") + (axis == 0 ? "height" : "width") + " with its dilation",
         std::to_string(reach), "at most the padded input's " + std::to_string(padded));
  }
  return (padded - reach) / op.stride[axis] + 1;
}

void* data_of(const char* name, const vd_tensor* tensor, const Shape& shape, int32_t dtype) {
  const TensorCheck check(kOp, name, tensor, static_cast<int>(shape.size()));
  return check.has_dtype({dtype}).has_shape(shape).is_contiguous().data();
}

Shape offset_shape(const DeformConv& op) {
  return {op.batch, 2 * op.offset_groups * op.taps(), op.out_height, op.out_width};
}

Shape mask_shape(const DeformConv& op) { return {op.batch, op.offset_groups * op.taps(), op.out_height, op.out_width}; }

}  // namespace

DeformConvCall check_deform_conv(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                 const vd_tensor* mask, const vd_deform_conv_params* params) {
  check_params(params);
  const TensorCheck maps(kOp, "input", input, 4);
  maps.has_dtype({VD_FLOAT32, VD_FLOAT64, VD_FLOAT16, VD_BFLOAT16}).is_contiguous();
  const TensorCheck weights(kOp, "weight", weight, 4);
  weights.has_dtype({maps.dtype()}).is_contiguous();
  // The batch may be empty; without channels, outputs, pixels or taps there would be nothing to convolve.
  for (const TensorCheck* each : {&maps, &weights}) {
    for (int axis = each == &maps ? 1 : 0; axis < 4; ++axis) {
      if (each->dim(axis) >= 1 && each->dim(axis) <= kLimit) continue;
      fail(kOp, std::string("tensor ") + (each == &maps ? "input" : "weight"), shape_text(each->shape()),
           "at least one channel, output, pixel and tap, and fewer than 2^31");
    }
  }
  check_divides("groups", params->groups, "input", "channels", maps.dim(1));
  check_divides("groups", params->groups, "weight", "outputs", weights.dim(0));
  check_divides("offset_groups", params->offset_groups, "input", "channels", maps.dim(1));

  DeformConvCall call;
  DeformConv& op = call.op;
  call.dtype = maps.dtype();
  op.batch = maps.dim(0);
  op.channels = maps.dim(1);
  op.height = maps.dim(2);
  op.width = maps.dim(3);
  op.outputs = weights.dim(0);
  op.groups = params->groups;
  op.offset_groups = params->offset_groups;
  for (int axis = 0; axis < 2; ++axis) {
    op.kernel[axis] = weights.dim(axis + 2);
    op.stride[axis] = params->stride[axis];
    op.padding[axis] = params->padding[axis];
    op.dilation[axis] = params->dilation[axis];
  }
  weights.has_shape({op.outputs, op.group_channels(), op.kernel[0], op.kernel[1]});
  op.out_height = output_size(op, *params, 0);
  op.out_width = output_size(op, *params, 1);
  // Neither product overflows: each factor is below 2^33, and a quotient is compared instead of the product.
  if (op.height > kLimit / op.width || op.out_height > kLimit / op.out_width || op.kernel[0] > kLimit / op.kernel[1]) {
    fail(kOp, "tensor input or weight is too large", shape_text(maps.shape()) + ", " + shape_text(weights.shape()),
         "fewer than 2^31 pixels, output positions and taps");
  }
  op.input = maps.data();
  op.weight = weights.data();
  op.offset = data_of("offset", offset, offset_shape(op), call.dtype);
  call.has_mask = mask != nullptr;
  if (call.has_mask) op.mask = data_of("mask", mask, mask_shape(op), call.dtype);
  return call;
}

void check_forward(DeformConvCall& call, const vd_tensor* bias, const vd_tensor* output) {
  DeformConv& op = call.op;
  if (bias != nullptr) op.bias = data_of("bias", bias, {op.outputs}, call.dtype);
  op.output = data_of("output", output, {op.batch, op.outputs, op.out_height, op.out_width}, call.dtype);
}

void check_backward(DeformConvCall& call, const vd_tensor* grad_output, const DeformConvGradients& gradients) {
  DeformConv& op = call.op;
  op.grad_output = data_of("grad_output", grad_output, {op.batch, op.outputs, op.out_height, op.out_width}, call.dtype);
  op.grad_input = data_of("grad_input", gradients.input, {op.batch, op.channels, op.height, op.width}, call.dtype);
  TensorCheck(kOp, "grad_input", gradients.input, 4).has_dtype({VD_FLOAT32, VD_FLOAT64});
  op.grad_offset = data_of("grad_offset", gradients.offset, offset_shape(op), call.dtype);
  op.grad_weight = data_of("grad_weight", gradients.weight,
                           {op.outputs, op.group_channels(), op.kernel[0], op.kernel[1]}, call.dtype);
  if (call.has_mask != (gradients.mask != nullptr)) {
    fail(kOp, "tensor grad_mask", call.has_mask ? "none" : "one", "one if there is a mask, else none");
  }
  if (gradients.mask != nullptr) op.grad_mask = data_of("grad_mask", gradients.mask, mask_shape(op), call.dtype);
  if (gradients.bias != nullptr) op.grad_bias = data_of("grad_bias", gradients.bias, {op.outputs}, call.dtype);
}

}  // namespace visdeploy
