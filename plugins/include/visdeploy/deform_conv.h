// Deformable convolution v1 and v2: the arithmetic, once for every engine.
//
//   out[n, o, y, x] = bias[o] + sum over c, i, j of  weight[o, c, i, j] * mask * bilinear(input[n, c], at_y, at_x)
//   at_y = y * stride_y - top + i * dilation_y + offset_y,  at_x = x * stride_x - left + j * dilation_x + offset_x
//
// offset and mask are those of tap (i, j) at (y, x) for the offset group of channel c. Coordinates and sums are float
// whatever the stored type (double for double).
#pragma once

#include "visdeploy/bilinear.h"

namespace visdeploy {

// A call whose tensors have been checked; every tensor is contiguous.
struct DeformConv {
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t outputs = 0, out_height = 0, out_width = 0;
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};  // (y, x); top and left
  int64_t groups = 1, offset_groups = 1;
  const void* input = nullptr;   // [batch, channels, height, width]
  const void* offset = nullptr;  // [batch, offset_groups * taps * 2, out_height, out_width], (y, x) of each tap
  const void* weight = nullptr;  // [outputs, channels / groups, kernel[0], kernel[1]]
  const void* mask = nullptr;    // [batch, offset_groups * taps, out_height, out_width], or null for v1
  const void* bias = nullptr;    // [outputs], or null; forward only
  void* output = nullptr;        // [batch, outputs, out_height, out_width]; forward only
  // Backward only; each gradient has the shape of what it is the gradient of. grad_mask and grad_bias may be null.
  const void* grad_output = nullptr;
  void *grad_input = nullptr, *grad_offset = nullptr, *grad_weight = nullptr;
  void *grad_mask = nullptr, *grad_bias = nullptr;

  VD_HD int64_t taps() const { return kernel[0] * kernel[1]; }
  VD_HD int64_t pixels() const { return height * width; }
  VD_HD int64_t positions() const { return out_height * out_width; }
  VD_HD int64_t group_channels() const { return channels / groups; }
  VD_HD int64_t group_outputs() const { return outputs / groups; }
  VD_HD int64_t offset_channels() const { return channels / offset_groups; }
  // Where the mask of a tap begins; its offsets begin at twice that for y, one plane later for x.
  VD_HD int64_t mask_plane(int64_t n, int64_t offset_group, int64_t tap) const {
    return ((n * offset_groups + offset_group) * taps() + tap) * positions();
  }
};

// Where a tap lies before its offset is added, along one axis (0 is y): for an output row or column.
VD_HD int64_t tap_origin(const DeformConv& op, int axis, int64_t output, int64_t tap) {
  return output * op.stride[axis] - op.padding[axis] + tap * op.dilation[axis];
}

// One tap of one output position: the input's neighbours of the point and what its sample is multiplied with.
template <typename Real>
struct TapSample {
  Neighbours<Real> found;
  Real mask;
};

// mask_plane is that of the tap, position counts row-major.
template <typename T>
VD_HD TapSample<Acc<T>> sample_tap(const DeformConv& op, int64_t mask_plane, Acc<T> origin_y, Acc<T> origin_x,
                                   int64_t position) {
  const T* offset = static_cast<const T*>(op.offset) + 2 * mask_plane + position;
  TapSample<Acc<T>> sample;
  sample.found = find_neighbours(origin_y + load(offset), origin_x + load(offset + op.positions()),
                                 static_cast<int32_t>(op.height), static_cast<int32_t>(op.width));
  sample.mask = op.mask == nullptr ? Acc<T>(1) : load(static_cast<const T*>(op.mask) + mask_plane + position);
  return sample;
}

template <typename Real>
struct TapGradients {
  Real mask, offset_y, offset_x;
};

// Gradients of one tap. dots[k] is the sum over channels of the sample's gradient times neighbour k's value, 0 for a
// neighbour outside the map; the derivative at an integer coordinate is the right-sided one.
template <typename Real>
VD_HD TapGradients<Real> tap_gradients(const TapSample<Real>& sample, const Real dots[4]) {
  const Real down = sample.found.down, right = sample.found.right, up = Real(1) - down, left = Real(1) - right;
  TapGradients<Real> grad;
  grad.mask = up * (left * dots[0] + right * dots[1]) + down * (left * dots[2] + right * dots[3]);
  grad.offset_y = sample.mask * (left * (dots[2] - dots[0]) + right * (dots[3] - dots[1]));
  grad.offset_x = sample.mask * (up * (dots[1] - dots[0]) + down * (dots[3] - dots[2]));
  return grad;
}

}  // namespace visdeploy
