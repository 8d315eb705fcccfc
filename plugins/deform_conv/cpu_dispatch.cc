#include "deform_conv/cpu_dispatch.h"

#include <algorithm>
#include <cstring>

#include "core/aligned_buffer.h"
#include "core/cpu_isa.h"

namespace visdeploy {
namespace {

// The zeroed buffer of that many bytes.
AlignedBuffer zeros(int64_t bytes) {
  AlignedBuffer buffer(bytes);
  std::memset(buffer.get(), 0, static_cast<size_t>(bytes));
  return buffer;
}

}  // namespace

const DeformConvCpuKernels& deform_conv_cpu() {
#if defined(VD_X86)
  if (cpu_isa() == CpuIsa::kAvx512) return deform_conv_avx512;
  if (cpu_isa() == CpuIsa::kAvx2) return deform_conv_avx2;
#endif
  return deform_conv_baseline;
}

int64_t deform_conv_packed_bytes(const DeformConv& op, int dtype) {
  return deform_conv_cpu().forward[dtype].packing(op).bytes;
}

void deform_conv_pack(const DeformConv& op, int dtype, void* packed, const Parallel& parallel) {
  const DeformConvForward& kernel = deform_conv_cpu().forward[dtype];
  const int64_t panels = kernel.packing(op).panels;
  parallel(panels, op.outputs * op.group_channels() * op.taps() / panels,
           [&](int64_t begin, int64_t end) { kernel.pack(op, begin, end, packed); });
}

void deform_conv_cpu_forward(const DeformConv& op, int dtype, const void* packed, const Parallel& parallel) {
  if (op.batch == 0) return;
  const DeformConvForward& kernel = deform_conv_cpu().forward[dtype];
  const DeformConvPlan plan = kernel.plan(op);
  const AlignedBuffer own(packed == nullptr ? kernel.packing(op).bytes : 0);
  if (packed == nullptr) {
    deform_conv_pack(op, dtype, own.get(), parallel);
    packed = own.get();
  }
  const AlignedBuffer maps(plan.map_bytes);
  parallel(plan.strips, op.batch * op.pixels() * op.channels / plan.strips,
           [&](int64_t begin, int64_t end) { kernel.lay_out(op, begin, end, maps.get()); });
  const int64_t cost = plan.block * op.taps() * op.channels * (op.group_outputs() + 8);
  parallel(op.batch * plan.blocks, cost, [&](int64_t begin, int64_t end) {
    const AlignedBuffer scratch(plan.scratch_bytes);
    kernel.convolve(op, plan, packed, maps.get(), begin, end, scratch.get());
  });
}

void deform_conv_cpu_backward(const DeformConv& op, int dtype, const Parallel& parallel) {
  const DeformConvBackward& kernel = deform_conv_cpu().backward[dtype];
  const DeformConvBackwardPlan plan = kernel.plan(op);
  const AlignedBuffer packed(plan.packed_bytes), map(plan.map_bytes), grad_map(plan.map_bytes);
  const AlignedBuffer columns(plan.column_bytes), grad_columns(plan.column_bytes), sums = zeros(plan.sum_bytes);
  const DeformConvMemory memory = {packed.get(),  map.get(),          grad_map.get(),
                                   columns.get(), grad_columns.get(), sums.get()};
  const int64_t weights = op.outputs * op.group_channels() * op.taps();
  parallel(plan.panels, weights / plan.panels,
           [&](int64_t begin, int64_t end) { kernel.pack(op, begin, end, packed.get()); });
  // What one position costs: the samples of its columns, and their products with weights or gradients.
  const int64_t samples = 16 * op.channels * op.taps(), products = weights;
  for (int64_t n = 0; n < op.batch; ++n) {
    const int64_t strip = op.pixels() * op.channels / plan.strips;
    parallel(plan.strips, strip, [&](int64_t begin, int64_t end) { kernel.lay_out(op, n, begin, end, map.get()); });
    std::memset(grad_map.get(), 0, static_cast<size_t>(plan.map_bytes));
    for (int64_t i = 0; i < plan.chunks; ++i) {
      const DeformConvChunk chunk = {n, i * plan.chunk, std::min((i + 1) * plan.chunk, op.positions())};
      const int64_t count = chunk.last - chunk.first;
      const auto run = [&](auto function, int64_t units, int64_t cost_of_position) {
        parallel(units, count * cost_of_position / units, [&](int64_t begin, int64_t end) {
          const AlignedBuffer scratch(plan.scratch_bytes);
          function(op, plan, memory, chunk, begin, end, scratch.get());
        });
      };
      run(kernel.columns, (count + plan.block - 1) / plan.block, samples + products);
      run(kernel.scatter, plan.slices, samples);
      run(kernel.weigh, plan.column_panels, products);
    }
    parallel(plan.strips, strip,
             [&](int64_t begin, int64_t end) { kernel.lay_back(op, n, begin, end, grad_map.get()); });
  }
  parallel(op.outputs, weights / op.outputs,
           [&](int64_t begin, int64_t end) { kernel.finish(op, memory, begin, end); });
}

}  // namespace visdeploy
