// The CUDA side of the C interface.

#include "core/error.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda_kernel.h"

namespace visdeploy {
namespace {

void forward(const MsDeformAttnInputs& inputs, const vd_tensor* output, void* stream) {
  MsDeformAttnCall call = check_ms_deform_attn(inputs);
  check_forward(call, output);
#if defined(VD_CUDA)
  ms_deform_attn_cuda_forward(call.op, call.dtype, call.points_dtype, stream);
#else
  (void)stream;
  fail(call.name, "CUDA call", "a library built without CUDA", "one built where nvcc is found");
#endif
}

}  // namespace
}  // namespace visdeploy

using namespace visdeploy;

extern "C" int vd_ms_deform_attn_forward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                              const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                              const vd_tensor* attention_weights, const vd_tensor* output,
                                              void* stream) {
  return guarded([&] {
    forward({value, spatial_shapes, level_start_index, sampling_locations, attention_weights}, output, stream);
  });
}

extern "C" int vd_ms_deform_attn_fused_forward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                                    const vd_tensor* level_start_index,
                                                    const vd_tensor* reference_points,
                                                    const vd_tensor* sampling_offsets,
                                                    const vd_tensor* attention_logits, const vd_tensor* output,
                                                    void* stream) {
  return guarded([&] {
    forward({value, spatial_shapes, level_start_index, sampling_offsets, attention_logits, reference_points, true},
            output, stream);
  });
}

extern "C" int vd_ms_deform_attn_backward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                               const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                               const vd_tensor* attention_weights, const vd_tensor* grad_output,
                                               const vd_tensor* grad_value, const vd_tensor* grad_sampling_locations,
                                               const vd_tensor* grad_attention_weights, void* stream) {
  return guarded([&] {
    MsDeformAttnCall call =
        check_ms_deform_attn({value, spatial_shapes, level_start_index, sampling_locations, attention_weights});
    check_backward(call, grad_output, grad_value, grad_sampling_locations, grad_attention_weights);
#if defined(VD_CUDA)
    ms_deform_attn_cuda_backward(call.op, call.dtype, stream);
#else
    (void)stream;
    fail(call.name, "CUDA call", "a library built without CUDA", "one built where nvcc is found");
#endif
  });
}
