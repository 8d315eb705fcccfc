// The CPU side of the C interface: check the tensors, share out the rows.

#include <memory>

#include "core/error.h"
#include "core/parallel.h"
#include "ms_deform_attn/arguments.h"
#include "ms_deform_attn/cpu_forward.h"
#include "ms_deform_attn/cpu_kernel.h"

namespace visdeploy {
namespace {

void forward(const MsDeformAttnInputs& inputs, const vd_tensor* output, int threads) {
  MsDeformAttnCall call = check_ms_deform_attn(inputs);
  read_geometry(call);
  check_forward(call, output);
  ms_deform_attn_cpu_forward(call, [&](int64_t items, int64_t cost, int64_t scratch_bytes, const CpuRange& body) {
    parallel_for(items, cost, threads, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<char[]> scratch(new char[static_cast<size_t>(scratch_bytes)]);
      body(begin, end, scratch.get());
    });
  });
}

}  // namespace
}  // namespace visdeploy

using namespace visdeploy;

extern "C" int vd_ms_deform_attn_forward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                         const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                         const vd_tensor* attention_weights, const vd_tensor* output, int threads) {
  return guarded([&] {
    forward({value, spatial_shapes, level_start_index, sampling_locations, attention_weights}, output, threads);
  });
}

extern "C" int vd_ms_deform_attn_fused_forward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                               const vd_tensor* level_start_index, const vd_tensor* reference_points,
                                               const vd_tensor* sampling_offsets, const vd_tensor* attention_logits,
                                               const vd_tensor* output, int threads) {
  return guarded([&] {
    forward({value, spatial_shapes, level_start_index, sampling_offsets, attention_logits, reference_points, true},
            output, threads);
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
