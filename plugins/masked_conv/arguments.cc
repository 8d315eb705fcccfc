#include "masked_conv/arguments.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "masked_conv";
constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

void check_pair(const char* name, const int64_t pair[2], int64_t least) {
  for (int axis = 0; axis < 2; ++axis) {
    if (pair[axis] < least || pair[axis] > kLargest) {
      fail(kOp, "parameter " + std::string(name), shape_text({pair[0], pair[1]}),
           "two numbers from " + std::to_string(least) + " to " + std::to_string(kLargest));
    }
  }
}

void check_sizes(const TensorCheck& tensor, const char* name) {
  tensor.is_contiguous();
  const Shape shape = tensor.shape();
  if (*std::max_element(shape.begin(), shape.end()) > kLargest ||
      *std::min_element(shape.begin() + 1, shape.end()) < 1) {
    fail(kOp, "tensor " + std::string(name) + " has an impossible size", shape_text(shape),
         "from 1 to " + std::to_string(kLargest) + " along each dimension; a batch may be empty");
  }
}

void check_groups(const TensorCheck& input, const TensorCheck& weight, int64_t groups) {
  if (groups < 1 || input.dim(1) % groups != 0 || weight.dim(0) % groups != 0) {
    fail(kOp, "parameter groups", std::to_string(groups),
         "a divisor of the " + std::to_string(input.dim(1)) + " input and " + std::to_string(weight.dim(0)) +
             " output channels");
  }
  if (weight.dim(1) != input.dim(1) / groups) {
    fail(kOp, "tensor weight has the wrong shape", shape_text(weight.shape()),
         shape_text({weight.dim(0), input.dim(1) / groups, weight.dim(2), weight.dim(3)}) + " for input " +
             shape_text(input.shape()) + " in " + std::to_string(groups) + " groups");
  }
}

// One side of the output, which is at least 1.
int64_t output_size(const MaskedConv& op, int axis) {
  const int64_t padded = (axis == 0 ? op.height : op.width) + 2 * op.padding[axis];
  const int64_t reach = op.dilation[axis] * (op.kernel[axis] - 1) + 1;
  if (padded < reach) {
    fail(kOp, "tensor weight is larger than the padded input",
         std::to_string(reach) + " along axis " + std::to_string(axis + 2), "at most " + std::to_string(padded));
  }
  return (padded - reach) / op.stride[axis] + 1;
}

const void* tensor(const char* name, const vd_tensor* tensor, const Shape& shape, int32_t dtype) {
  const TensorCheck check(kOp, name, tensor, static_cast<int>(shape.size()));
  return check.has_dtype({dtype}).has_shape(shape).is_contiguous().data();
}

}  // namespace

MaskedConvCall check_masked_conv(const vd_tensor* input, const vd_tensor* mask, const vd_tensor* weight,
                                 const vd_masked_conv_params* params) {
  const TensorCheck inputs(kOp, "x", input, 4), weights(kOp, "weight", weight, 4), masks(kOp, "mask", mask, 3);
  inputs.has_dtype({VD_FLOAT32, VD_FLOAT64, VD_FLOAT16, VD_BFLOAT16});
  weights.has_dtype({inputs.dtype()});
  if (inputs.dtype() == VD_FLOAT32) {
    masks.has_dtype({VD_FLOAT32, VD_BOOL});
  } else {
    masks.has_dtype({inputs.dtype(), VD_FLOAT32, VD_BOOL});
  }
  if (params == nullptr) fail(kOp, "parameters", "a null pointer", "stride, padding, dilation and groups");
  check_pair("stride", params->stride, 1);
  check_pair("padding", params->padding, 0);
  check_pair("dilation", params->dilation, 1);
  check_sizes(inputs, "x");
  check_sizes(weights, "weight");
  if (weights.dim(0) < 1) fail(kOp, "tensor weight has no output channels", shape_text(weights.shape()), "at least 1");
  check_groups(inputs, weights, params->groups);

  MaskedConvCall call;
  call.dtype = inputs.dtype();
  MaskedConv& op = call.op;
  op.batch = inputs.dim(0), op.channels = inputs.dim(1), op.height = inputs.dim(2), op.width = inputs.dim(3);
  op.outputs = weights.dim(0), op.groups = params->groups;
  for (int axis = 0; axis < 2; ++axis) {
    op.kernel[axis] = weights.dim(axis + 2);
    op.stride[axis] = params->stride[axis];
    op.padding[axis] = params->padding[axis];
    op.dilation[axis] = params->dilation[axis];
  }
  op.rows = output_size(op, 0);
  op.columns = output_size(op, 1);
  op.input = inputs.data();
  op.weight = weights.data();
  op.mask_dtype = masks.dtype();
  op.mask = tensor("mask", mask, {op.batch, op.rows, op.columns}, op.mask_dtype);
  return call;
}

void check_forward(MaskedConvCall& call, const vd_tensor* bias, const vd_tensor* output) {
  MaskedConv& op = call.op;
  if (bias != nullptr) op.bias = tensor("bias", bias, {op.outputs}, call.dtype);
  const Shape shape = {op.batch, op.outputs, op.rows, op.columns};
  op.output = const_cast<void*>(tensor("output", output, shape, call.dtype));
}

void check_backward(MaskedConvCall& call, const vd_tensor* grad_output, const vd_tensor* grad_input,
                    const vd_tensor* grad_weight, const vd_tensor* grad_bias) {
  MaskedConv& op = call.op;
  const Shape weight = {op.outputs, op.group_channels(), op.kernel[0], op.kernel[1]};
  op.grad_output = tensor("grad_output", grad_output, {op.batch, op.outputs, op.rows, op.columns}, call.dtype);
  op.grad_input =
      const_cast<void*>(tensor("grad_x", grad_input, {op.batch, op.channels, op.height, op.width}, call.dtype));
  op.grad_weight = const_cast<void*>(tensor("grad_weight", grad_weight, weight, call.dtype));
  op.grad_bias = const_cast<void*>(tensor("grad_bias", grad_bias, {op.outputs}, call.dtype));
  TensorCheck(kOp, "x", grad_input, 4).has_dtype({VD_FLOAT32, VD_FLOAT64});
}

}  // namespace visdeploy
