// The CUDA side of the C interface.

#include "core/error.h"
#include "masked_conv/arguments.h"
#include "masked_conv/cuda_kernel.h"

namespace visdeploy {
namespace {

#if defined(VD_CUDA)
constexpr auto run_forward = masked_conv_cuda_forward;
constexpr auto run_backward = masked_conv_cuda_backward;
#else
void run_forward(const MaskedConv&, int, void*) {
  fail("masked_conv", "CUDA call", "a library built without CUDA", "one built where nvcc is found");
}
constexpr auto run_backward = run_forward;
#endif

}  // namespace
}  // namespace visdeploy

using namespace visdeploy;

extern "C" int vd_masked_conv_forward_cuda(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                           const vd_tensor* bias, const vd_tensor* output,
                                           const vd_masked_conv_params* params, void* stream) {
  return guarded([&] {
    MaskedConvCall call = check_masked_conv(x, mask, weight, params);
    check_forward(call, bias, output);
    run_forward(call.op, call.dtype, stream);
  });
}

extern "C" int vd_masked_conv_backward_cuda(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                            const vd_tensor* grad_output, const vd_tensor* grad_x,
                                            const vd_tensor* grad_weight, const vd_tensor* grad_bias,
                                            const vd_masked_conv_params* params, void* stream) {
  return guarded([&] {
    MaskedConvCall call = check_masked_conv(x, mask, weight, params);
    check_backward(call, grad_output, grad_x, grad_weight, grad_bias);
    run_backward(call.op, call.dtype, stream);
  });
}
