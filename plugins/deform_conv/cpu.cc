// The CPU side of the C interface: check the tensors, run the call on threads of our own.

#include "core/error.h"
#include "core/parallel.h"
#include "deform_conv/arguments.h"
#include "deform_conv/cpu_dispatch.h"

using namespace visdeploy;

namespace {

Parallel on_threads(int threads) {
  return [threads](int64_t items, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    parallel_for(items, cost, threads, body);
  };
}

}  // namespace

extern "C" int vd_deform_conv_forward(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                      const vd_tensor* mask, const vd_tensor* bias, const vd_tensor* output,
                                      const vd_deform_conv_params* params, int threads) {
  return guarded([&] {
    DeformConvCall call = check_deform_conv(input, offset, weight, mask, params);
    check_forward(call, bias, output);
    deform_conv_cpu_forward(call.op, call.dtype, nullptr, on_threads(threads));
  });
}

extern "C" int vd_deform_conv_backward(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                       const vd_tensor* mask, const vd_tensor* grad_output, const vd_tensor* grad_input,
                                       const vd_tensor* grad_offset, const vd_tensor* grad_weight,
                                       const vd_tensor* grad_mask, const vd_tensor* grad_bias,
                                       const vd_deform_conv_params* params, int threads) {
  return guarded([&] {
    DeformConvCall call = check_deform_conv(input, offset, weight, mask, params);
    check_backward(call, grad_output, {grad_input, grad_offset, grad_weight, grad_mask, grad_bias});
    deform_conv_cpu_backward(call.op, call.dtype, on_threads(threads));
  });
}
