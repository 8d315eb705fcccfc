// The CPU side of the C interface.

#include "core/error.h"
#include "core/parallel.h"
#include "masked_conv/arguments.h"
#include "masked_conv/cpu_run.h"

using namespace visdeploy;

namespace {

ParallelRun run_on(int threads) {
  return [threads](int64_t items, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
    parallel_for(items, cost, threads, body);
  };
}

}  // namespace

extern "C" int vd_masked_conv_forward(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                      const vd_tensor* bias, const vd_tensor* output,
                                      const vd_masked_conv_params* params, int threads) {
  return guarded([&] {
    MaskedConvCall call = check_masked_conv(x, mask, weight, params);
    check_forward(call, bias, output);
    masked_conv_cpu_forward(call, nullptr, run_on(threads));
  });
}

extern "C" int vd_masked_conv_backward(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                       const vd_tensor* grad_output, const vd_tensor* grad_x,
                                       const vd_tensor* grad_weight, const vd_tensor* grad_bias,
                                       const vd_masked_conv_params* params, int threads) {
  return guarded([&] {
    MaskedConvCall call = check_masked_conv(x, mask, weight, params);
    check_backward(call, grad_output, grad_x, grad_weight, grad_bias);
    masked_conv_cpu_backward(call, run_on(threads));
  });
}
