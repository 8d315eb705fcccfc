// Turns the tensors of a caller into a checked call.
#pragma once

#include <vector>

#include "visdeploy/c_api.h"
#include "visdeploy/ms_deform_attn.h"

namespace visdeploy {

struct MsDeformAttnCall {
  MsDeformAttn op;
  std::vector<Level> geometry;  // owns what op.geometry points to
  int32_t dtype = VD_OTHER;     // of every floating-point tensor
};

// The five inputs. Throws OpError naming the tensor that does not agree with the others. The two index tensors must be
// readable by the host.
MsDeformAttnCall check_ms_deform_attn(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                      const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                      const vd_tensor* attention_weights);

// Adds output, or grad_output and the three gradients.
void check_forward(MsDeformAttnCall& call, const vd_tensor* output);
void check_backward(MsDeformAttnCall& call, const vd_tensor* grad_output, const vd_tensor* grad_value,
                    const vd_tensor* grad_sampling_locations, const vd_tensor* grad_attention_weights);

// Multiply-adds of one (batch, query) row.
int64_t row_cost(const MsDeformAttn& op);

}  // namespace visdeploy
