// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "deform_conv/cpu_kernel.h"

#include "deform_conv/cpu_backward.h"
#include "deform_conv/cpu_forward.h"

namespace visdeploy {
namespace {

template <typename T>
constexpr DeformConvForward kForward = {plan_packing<T>, plan_forward<T>, pack_forward<T>, lay_out<T>, convolve<T>};

template <typename T>
constexpr DeformConvBackward kBackward = {plan_backward<T>, pack_backward<T>, lay_out_image<T>, lay_back_image<T>,
                                          columns<T>,       scatter<T>,       weigh<T>,         finish<T>};

}  // namespace

extern const DeformConvCpuKernels VD_ISA_TABLE;
const DeformConvCpuKernels VD_ISA_TABLE = {
    {{}, kForward<float>, kForward<double>, kForward<Half>, kForward<BFloat16>},
    {{}, kBackward<float>, kBackward<double>, {}, {}},
};

}  // namespace visdeploy
