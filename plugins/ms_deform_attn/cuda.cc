// The CUDA side of the C interface.

#include "core/error.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cuda_kernel.h"

namespace visdeploy {
namespace {

#if defined(VD_CUDA)
constexpr auto run_forward = ms_deform_attn_cuda_forward;
constexpr auto run_backward = ms_deform_attn_cuda_backward;
#else
void run_forward(const MsDeformAttn&, int, void*) {
  fail("ms_deform_attn", "CUDA call", "a library built without CUDA", "one built where nvcc is found");
}
constexpr auto run_backward = run_forward;
#endif

}  // namespace
}  // namespace visdeploy

using namespace visdeploy;

extern "C" int vd_ms_deform_attn_forward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                              const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                              const vd_tensor* attention_weights, const vd_tensor* output,
                                              void* stream) {
  return guarded([&] {
    MsDeformAttnCall call =
        check_ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
    check_forward(call, output);
    run_forward(call.op, call.dtype, stream);
  });
}

extern "C" int vd_ms_deform_attn_backward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                               const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                               const vd_tensor* attention_weights, const vd_tensor* grad_output,
                                               const vd_tensor* grad_value, const vd_tensor* grad_sampling_locations,
                                               const vd_tensor* grad_attention_weights, void* stream) {
  return guarded([&] {
    MsDeformAttnCall call =
        check_ms_deform_attn(value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
    check_backward(call, grad_output, grad_value, grad_sampling_locations, grad_attention_weights);
    run_backward(call.op, call.dtype, stream);
  });
}
