// Turns the tensors of a caller into a checked call.
#pragma once

#include "visdeploy/c_api.h"
#include "visdeploy/masked_conv.h"

namespace visdeploy {

struct MaskedConvCall {
  MaskedConv op;
  int32_t dtype = VD_OTHER;  // of every floating-point tensor but the mask
};

// Input, mask and weight. Throws OpError naming the tensor or parameter that does not agree with the others.
MaskedConvCall check_masked_conv(const vd_tensor* input, const vd_tensor* mask, const vd_tensor* weight,
                                 const vd_masked_conv_params* params);

// Adds bias (null for none) and output, or grad_output and the three gradients.
void check_forward(MaskedConvCall& call, const vd_tensor* bias, const vd_tensor* output);
void check_backward(MaskedConvCall& call, const vd_tensor* grad_output, const vd_tensor* grad_input,
                    const vd_tensor* grad_weight, const vd_tensor* grad_bias);

}  // namespace visdeploy
