// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "masked_conv/cpu_kernel.h"

#include "masked_conv/cpu_gradients.h"
#include "masked_conv/cpu_product.h"
#include "masked_conv/cpu_rows.h"

namespace visdeploy {
namespace {

template <typename T>
int64_t panels(const MaskedConvFilter& filter) {
  return panels_of<T>(filter).count();
}

template <typename T>
int64_t packed_size(const MaskedConvFilter& filter) {
  return filter.groups * panels_of<T>(filter).size();
}

template <typename T>
void pack(const MaskedConvFilter& filter, const void* weight, int64_t begin, int64_t end, void* packed) {
  const Panels<Acc<T>> shape = panels_of<T>(filter);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t group = i / shape.count(), panel = i % shape.count();
    pack_weights(static_cast<const T*>(weight) + group * filter.outputs * shape.depth, filter.outputs, filter.depth,
                 filter.taps, panel, panel + 1, static_cast<Acc<T>*>(packed) + group * shape.size());
  }
}

template <typename T>
void swap_channels(const MaskedConv& op, int64_t begin, int64_t end, void* swapped) {
  const int64_t outputs = op.group_outputs(), channels = op.group_channels(), taps = op.taps();
  for (int64_t group = begin; group < end; ++group) {
    const T* from = static_cast<const T*>(op.weight) + group * outputs * channels * taps;
    T* to = static_cast<T*>(swapped) + group * outputs * channels * taps;
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t t = 0; t < taps; ++t) to[(c * outputs + o) * taps + t] = from[(o * channels + c) * taps + t];
      }
    }
  }
}

}  // namespace

extern const MaskedConvCpuKernels VD_ISA_TABLE;
const MaskedConvCpuKernels VD_ISA_TABLE = {
    {nullptr, gather_rows<float>, gather_rows<double>, gather_rows<Half>, gather_rows<BFloat16>},
    {nullptr, panels<float>, panels<double>, panels<Half>, panels<BFloat16>},
    {nullptr, packed_size<float>, packed_size<double>, packed_size<Half>, packed_size<BFloat16>},
    {nullptr, pack<float>, pack<double>, pack<Half>, pack<BFloat16>},
    {nullptr, multiply<float>, multiply<double>, multiply<Half>, multiply<BFloat16>},
    {nullptr, swap_channels<float>, swap_channels<double>, nullptr, nullptr},
    {nullptr, pack_grads<float>, pack_grads<double>, nullptr, nullptr},
    {nullptr, sum_weights<float>, sum_weights<double>, nullptr, nullptr},
    {nullptr, sum_bias<float>, sum_bias<double>, nullptr, nullptr},
    weight_blocks,
    kPanelWidth<float>,
};

}  // namespace visdeploy
