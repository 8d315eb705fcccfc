// A small convolution that fits together, for the ops that are one.
#pragma once

#include "fuzz/tensor.h"

namespace visdeploy::fuzz {

struct Convolution {
  int64_t batch, groups, channels, outputs, offset_groups, size[2], kernel[2], stride[2], padding[4], dilation[2];

  // Pads top, left, bottom and right each in its own way, or equally on both sides.
  Convolution(Bytes& bytes, bool one_sided) {
    batch = bytes.below(3);
    groups = bytes.between(1, 3);
    offset_groups = bytes.seldom() ? groups : 1;
    channels = groups * bytes.between(1, 6);
    outputs = groups * bytes.between(1, 6);
    for (int axis = 0; axis < 2; ++axis) {
      kernel[axis] = bytes.between(1, 3);
      stride[axis] = bytes.between(1, 3);
      dilation[axis] = bytes.between(1, 2);
      padding[axis] = bytes.below(3);
      padding[axis + 2] = one_sided ? bytes.below(3) : padding[axis];
      // At least as many pixels as the kernel reaches over without padding.
      size[axis] = dilation[axis] * (kernel[axis] - 1) + bytes.between(1, 6);
    }
  }

  int64_t output_size(int axis) const {
    const int64_t reach = dilation[axis] * (kernel[axis] - 1) + 1;
    return (size[axis] + padding[axis] + padding[axis + 2] - reach) / stride[axis] + 1;
  }

  Shape input() const { return {batch, channels, size[0], size[1]}; }
  Shape weight() const { return {outputs, channels / groups, kernel[0], kernel[1]}; }
  Shape output() const { return {batch, outputs, output_size(0), output_size(1)}; }
};

}  // namespace visdeploy::fuzz
