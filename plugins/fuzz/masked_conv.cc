// vd_masked_conv_*: a small convolution with a mask, with faults in tensors and parameters.
#include "fuzz/convolution.h"
#include "fuzz/target.h"

namespace visdeploy::fuzz {
namespace {

constexpr const char* kOp = "masked_conv";

void run(Bytes& bytes) {
  const bool backward = bytes.below(2), cuda = bytes.below(2), biased = bytes.below(2);
  const int threads = static_cast<int>(bytes.between(-1, 3));
  const Convolution c(bytes, false);
  const int32_t dtype = any_float(bytes);
  const int32_t mask_dtypes[] = {VD_BOOL, VD_FLOAT32, dtype};
  const Shape output = c.output(), bias = {c.outputs};
  std::vector<Tensor> tensors;
  tensors.emplace_back(c.input(), dtype);
  tensors.emplace_back(Shape{c.batch, output[2], output[3]}, mask_dtypes[bytes.below(3)]);
  tensors.emplace_back(c.weight(), dtype);
  if (backward) {
    for (const Shape& shape : {output, c.input(), c.weight(), bias}) tensors.emplace_back(shape, dtype);
  } else {
    tensors.push_back(biased ? Tensor(bias, dtype) : Tensor::absent());
    tensors.emplace_back(output, dtype);
  }
  vd_masked_conv_params params = {
      {c.stride[0], c.stride[1]}, {c.padding[0], c.padding[1]}, {c.dilation[0], c.dilation[1]}, c.groups};
  int64_t* fields[] = {&params.stride[0],   &params.stride[1],   &params.padding[0], &params.padding[1],
                       &params.dilation[0], &params.dilation[1], &params.groups};
  if (bytes.seldom()) *fields[bytes.below(7)] = bytes.odd_integer();
  const vd_masked_conv_params* given = bytes.seldom() ? nullptr : &params;
  spoil_some(tensors, bytes);
  const std::vector<const vd_tensor*> t = prepare_all(tensors, bytes);
  if (backward) {
    check_result(kOp, cuda ? vd_masked_conv_backward_cuda(t[0], t[1], t[2], t[3], t[4], t[5], t[6], given, nullptr)
                           : vd_masked_conv_backward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], given, threads));
  } else {
    check_result(kOp, cuda ? vd_masked_conv_forward_cuda(t[0], t[1], t[2], t[3], t[4], given, nullptr)
                           : vd_masked_conv_forward(t[0], t[1], t[2], t[3], t[4], given, threads));
  }
}

const Subject subject(run);

}  // namespace
}  // namespace visdeploy::fuzz
