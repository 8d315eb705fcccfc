// The CUDA side of the C interface.

#include "core/error.h"
#include "deform_conv/arguments.h"
#include "deform_conv/cuda_kernel.h"

namespace visdeploy {
namespace {

#if defined(VD_CUDA)
constexpr auto run_forward = deform_conv_cuda_forward;
constexpr auto run_backward = deform_conv_cuda_backward;
#else
void run_forward(const DeformConv&, int, void*) {
  fail("deform_conv", "CUDA call", "a library built without CUDA", "one built where nvcc is found");
}
constexpr auto run_backward = run_forward;
#endif

}  // namespace
}  // namespace visdeploy

using namespace visdeploy;

extern "C" int vd_deform_conv_forward_cuda(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                           const vd_tensor* mask, const vd_tensor* bias, const vd_tensor* output,
                                           const vd_deform_conv_params* params, void* stream) {
  return guarded([&] {
    DeformConvCall call = check_deform_conv(input, offset, weight, mask, params);
    check_forward(call, bias, output);
    run_forward(call.op, call.dtype, stream);
  });
}

extern "C" int vd_deform_conv_backward_cuda(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                            const vd_tensor* mask, const vd_tensor* grad_output,
                                            const vd_tensor* grad_input, const vd_tensor* grad_offset,
                                            const vd_tensor* grad_weight, const vd_tensor* grad_mask,
                                            const vd_tensor* grad_bias, const vd_deform_conv_params* params,
                                            void* stream) {
  return guarded([&] {
    DeformConvCall call = check_deform_conv(input, offset, weight, mask, params);
    check_backward(call, grad_output, {grad_input, grad_offset, grad_weight, grad_mask, grad_bias});
    run_backward(call.op, call.dtype, stream);
  });
}
