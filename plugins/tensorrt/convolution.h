// Attributes and output size that convolutions share; names and meanings are those of ONNX.
#pragma once

#include "tensorrt/op.h"

namespace visdeploy {
namespace trt {

// strides, pads [top, left, bottom, right], dilations, group
inline std::vector<AttributeSpec> convolution_attributes() {
  return {{"strides", 2, {1, 1}, 1}, {"pads", 4, {0, 0, 0, 0}}, {"dilations", 2, {1, 1}, 1}, {"group", 1, {1}, 1}};
}

// Rows or columns of the output: those of the input and of the kernel, along one axis (0 is vertical).
inline Dim convolution_size(const Attributes& attributes, int axis, Dim input, Dim kernel, DimArithmetic& dims) {
  const auto at = static_cast<size_t>(axis);
  const std::vector<int64_t> pads = attributes.integers("pads");
  const Dim padded = dims.add(input, dims.constant(pads[at] + pads[at + 2]));
  const Dim dilation = dims.constant(attributes.integers("dilations")[at]);
  const Dim reach = dims.multiply(dims.subtract(kernel, dims.constant(1)), dilation);  // without the first tap
  const Dim steps = dims.subtract(dims.subtract(padded, reach), dims.constant(1));
  return dims.add(dims.divide(steps, dims.constant(attributes.integers("strides")[at])), dims.constant(1));
}

}  // namespace trt
}  // namespace visdeploy
