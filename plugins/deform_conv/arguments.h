// Turns the tensors and parameters of a caller into a checked call.
#pragma once

#include "visdeploy/c_api.h"
#include "visdeploy/deform_conv.h"

namespace visdeploy {

struct DeformConvCall {
  DeformConv op;
  int32_t dtype = VD_OTHER;  // of every tensor
  bool has_mask = false;     // an empty mask has no address
};

// The inputs; mask may be null. Throws OpError naming the tensor or parameter that does not agree with the others.
DeformConvCall check_deform_conv(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                 const vd_tensor* mask, const vd_deform_conv_params* params);

// Adds bias, which may be null, and output.
void check_forward(DeformConvCall& call, const vd_tensor* bias, const vd_tensor* output);

struct DeformConvGradients {
  const vd_tensor *input, *offset, *weight, *mask, *bias;  // mask is null when the call has none; bias may be null
};
void check_backward(DeformConvCall& call, const vd_tensor* grad_output, const DeformConvGradients& gradients);

}  // namespace visdeploy
