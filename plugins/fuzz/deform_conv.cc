// vd_deform_conv_*: a small convolution, with faults in tensors and parameters.
#include "fuzz/convolution.h"
#include "fuzz/target.h"

namespace visdeploy::fuzz {
namespace {

constexpr const char* kOp = "deform_conv";

void run(Bytes& bytes) {
  const bool backward = bytes.below(2), cuda = bytes.below(2), masked = bytes.below(2), biased = bytes.below(2);
  const int threads = static_cast<int>(bytes.between(-1, 3));
  const Convolution c(bytes, true);
  const int32_t dtype = any_float(bytes);
  const int64_t taps = c.kernel[0] * c.kernel[1];
  const Shape input = c.input(), weight = c.weight(), output = c.output(), bias = {c.outputs};
  const Shape offset = {c.batch, 2 * c.offset_groups * taps, output[2], output[3]};
  const Shape mask = {c.batch, c.offset_groups * taps, output[2], output[3]};
  std::vector<Tensor> tensors;
  for (const Shape& shape : {input, offset, weight}) tensors.emplace_back(shape, dtype);
  tensors.push_back(masked ? Tensor(mask, dtype) : Tensor::absent());
  if (backward) {
    for (const Shape& shape : {output, input, offset, weight}) tensors.emplace_back(shape, dtype);
    tensors.push_back(masked ? Tensor(mask, dtype) : Tensor::absent());
  }
  tensors.push_back(biased ? Tensor(bias, dtype) : Tensor::absent());
  if (!backward) tensors.emplace_back(output, dtype);
  vd_deform_conv_params params = {{c.stride[0], c.stride[1]},
                                  {c.padding[0], c.padding[1], c.padding[2], c.padding[3]},
                                  {c.dilation[0], c.dilation[1]},
                                  c.groups,
                                  c.offset_groups};
  int64_t* fields[] = {&params.stride[0],  &params.stride[1],    &params.padding[0],  &params.padding[1],
                       &params.padding[2], &params.padding[3],   &params.dilation[0], &params.dilation[1],
                       &params.groups,     &params.offset_groups};
  if (bytes.seldom()) *fields[bytes.below(10)] = bytes.odd_integer();
  const vd_deform_conv_params* given = bytes.seldom() ? nullptr : &params;
  spoil_some(tensors, bytes);
  const std::vector<const vd_tensor*> t = prepare_all(tensors, bytes);
  if (backward) {
    check_result(
        kOp,
        cuda ? vd_deform_conv_backward_cuda(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], given, nullptr)
             : vd_deform_conv_backward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], given, threads));
  } else {
    check_result(kOp, cuda ? vd_deform_conv_forward_cuda(t[0], t[1], t[2], t[3], t[4], t[5], given, nullptr)
                           : vd_deform_conv_forward(t[0], t[1], t[2], t[3], t[4], t[5], given, threads));
  }
}

const Subject subject(run);

}  // namespace
}  // namespace visdeploy::fuzz
