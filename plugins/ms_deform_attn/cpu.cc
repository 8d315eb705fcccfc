// The CPU side of the C interface: check the tensors, share out the rows.

#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu_kernel.h"

using namespace visdeploy;

extern "C" int vd_ms_deform_attn_forward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                         const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                         const vd_tensor* attention_weights, const vd_tensor* output, int threads) {
  return guarded([&] {
    MsDeformAttnCall call =
        check_ms_deform_attn({value, spatial_shapes, level_start_index, sampling_locations, attention_weights});
    read_geometry(call);
    check_forward(call, output);
    const auto kernel = ms_deform_attn_cpu().forward[call.dtype];
    parallel_for(call.op.batch * call.op.queries, row_cost(call.op), threads, [&](int64_t begin, int64_t end) {
      std::vector<double> scratch(static_cast<size_t>(ms_deform_attn_scratch(call.op)) / sizeof(double));
      kernel(call.op, begin, end, scratch.data());
    });
  });
}

extern "C" int vd_ms_deform_attn_backward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                          const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                          const vd_tensor* attention_weights, const vd_tensor* grad_output,
                                          const vd_tensor* grad_value, const vd_tensor* grad_sampling_locations,
                                          const vd_tensor* grad_attention_weights, int threads) {
  return guarded([&] {
    MsDeformAttnCall call =
        check_ms_deform_attn({value, spatial_shapes, level_start_index, sampling_locations, attention_weights});
    read_geometry(call);
    check_backward(call, grad_output, grad_value, grad_sampling_locations, grad_attention_weights);
    const MsDeformAttn& op = call.op;
    const int64_t size = call.dtype == VD_FLOAT64 ? 8 : 4;
    auto* sums = static_cast<char*>(op.grad_value);
    if (sums != nullptr)
      __builtin_memset(sums, 0, static_cast<size_t>(op.batch * op.tokens * op.heads * op.channels * size));
    const auto kernel = ms_deform_attn_cpu().backward[call.dtype];
    parallel_for(op.batch * op.heads, 2 * op.queries * row_cost(op) / op.heads, threads,
                 [&](int64_t begin, int64_t end) { kernel(op, begin, end); });
  });
}
