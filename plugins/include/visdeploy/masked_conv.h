// Masked convolution: the arithmetic, once for every engine.
//
//   out[n, o, y, x] = bias[o] + sum over c, i, j of
//                     weight[o, c, i, j] * input[n, first + c, y * stride_y - padding_y + i * dilation_y, x * ...]
//
// where mask[n, y, x] > 0, with zeros around the input, and exactly 0 everywhere else. first is the first input channel
// of output channel o's group. Sums are float whatever the stored type (double for double).
#pragma once

#include "visdeploy/c_api.h"
#include "visdeploy/host_device.h"

namespace visdeploy {

// A call whose tensors have been checked; every tensor is contiguous. Pairs are (vertical, horizontal).
struct MaskedConv {
  int64_t batch = 0, channels = 0, height = 0, width = 0;  // of the input
  int64_t outputs = 0, rows = 0, columns = 0;              // channels and size of the output
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1}, groups = 1;
  const void* input = nullptr;   // [batch, channels, height, width]
  const void* mask = nullptr;    // [batch, rows, columns] of mask_dtype
  const void* weight = nullptr;  // [outputs, channels / groups, kernel]
  const void* bias = nullptr;    // [outputs], or null for none; forward only
  void* output = nullptr;        // [batch, outputs, rows, columns]; forward only
  // Backward only; each gradient has the shape of what it is the gradient of.
  const void* grad_output = nullptr;
  void *grad_input = nullptr, *grad_weight = nullptr, *grad_bias = nullptr;
  int32_t mask_dtype = VD_OTHER;

  VD_HD int64_t taps() const { return kernel[0] * kernel[1]; }
  VD_HD int64_t input_plane() const { return height * width; }
  VD_HD int64_t output_plane() const { return rows * columns; }
  VD_HD int64_t group_channels() const { return channels / groups; }
  VD_HD int64_t group_outputs() const { return outputs / groups; }
};

// Whether position i of the mask is computed: positive values are, infinity too; zeros of either sign, negative values
// and NaN are not.
VD_HD bool is_active(const MaskedConv& op, int64_t i) {
  switch (op.mask_dtype) {
    case VD_FLOAT32:
      return load(static_cast<const float*>(op.mask) + i) > 0.0f;
    case VD_FLOAT64:
      return load(static_cast<const double*>(op.mask) + i) > 0.0;
    case VD_FLOAT16:
      return load(static_cast<const Half*>(op.mask) + i) > 0.0f;
    case VD_BFLOAT16:
      return load(static_cast<const BFloat16*>(op.mask) + i) > 0.0f;
    default:
      return static_cast<const uint8_t*>(op.mask)[i] != 0;
  }
}

// The pixel of the input plane that output position (row, column) reads through a tap; -1 in the padding.
VD_HD int64_t tap_source(const MaskedConv& op, int64_t row, int64_t column, int64_t tap) {
  const int64_t y = row * op.stride[0] - op.padding[0] + tap / op.kernel[1] * op.dilation[0];
  const int64_t x = column * op.stride[1] - op.padding[1] + tap % op.kernel[1] * op.dilation[1];
  return y >= 0 && y < op.height && x >= 0 && x < op.width ? y * op.width + x : -1;
}

// The other way round: the position of the output plane that reads input pixel (y, x) through a tap; -1 if none does.
VD_HD int64_t tap_target(const MaskedConv& op, int64_t y, int64_t x, int64_t tap) {
  const int64_t down = y + op.padding[0] - tap / op.kernel[1] * op.dilation[0];
  const int64_t right = x + op.padding[1] - tap % op.kernel[1] * op.dilation[1];
  if (down < 0 || right < 0 || down % op.stride[0] != 0 || right % op.stride[1] != 0) return -1;
  const int64_t row = down / op.stride[0], column = right / op.stride[1];
  return row < op.rows && column < op.columns ? row * op.columns + column : -1;
}

}  // namespace visdeploy
