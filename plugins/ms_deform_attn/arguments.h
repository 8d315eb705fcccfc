// Turns the tensors of a caller into a checked call.
#pragma once

#include <vector>

#include "visdeploy/c_api.h"
#include "visdeploy/ms_deform_attn.h"

namespace visdeploy {

// The inputs as the caller has them; the fused form has its own names for some.
struct MsDeformAttnInputs {
  const vd_tensor *value, *spatial_shapes, *level_start_index;
  const vd_tensor* locations;             // sampling_locations, or sampling_offsets
  const vd_tensor* weights;               // attention_weights, or attention_logits
  const vd_tensor* references = nullptr;  // reference_points
  bool fused = false;
};

struct MsDeformAttnCall {
  const char* name;  // of the op, for messages
  MsDeformAttn op;
  std::vector<Level> geometry;      // owns what op.geometry points to
  int32_t dtype = VD_OTHER;         // of value and output
  int32_t points_dtype = VD_OTHER;  // of locations and weights
};

// Checks everything but the contents of the two index tensors, which may be in device memory. Throws OpError naming
// the tensor that does not agree with the others.
MsDeformAttnCall check_ms_deform_attn(const MsDeformAttnInputs& inputs);

// For CPU kernels: reads and checks the two index tensors, which must be in host memory.
void read_geometry(MsDeformAttnCall& call);

// Adds output, or grad_output and the three gradients.
void check_forward(MsDeformAttnCall& call, const vd_tensor* output);
void check_backward(MsDeformAttnCall& call, const vd_tensor* grad_output, const vd_tensor* grad_value,
                    const vd_tensor* grad_sampling_locations, const vd_tensor* grad_attention_weights);

// Multiply-adds of one (batch, query) row.
int64_t row_cost(const MsDeformAttn& op);

}  // namespace visdeploy
