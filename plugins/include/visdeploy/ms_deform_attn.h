// Multi-scale deformable attention: the arithmetic, once for every engine.
//
//   out[n, q, m, d] = sum over l, p of  weight[n, q, m, l, p] * bilinear(level l of value[n, :, m, d], y, x)
//   y = location_y * height_l - 0.5,  x = location_x * width_l - 0.5
//
// Coordinates and sums are float whatever the stored type (double for double).
#pragma once

#include "visdeploy/bilinear.h"

namespace visdeploy {

// One level of the flattened pyramid: its map is value[n, start : start + height * width].
struct Level {
  int32_t height, width, start;
};

// A call whose tensors have been checked; every tensor is contiguous.
struct MsDeformAttn {
  int64_t batch = 0, tokens = 0, heads = 0, channels = 0, levels = 0, queries = 0, points = 0;
  const void* value = nullptr;      // [batch, tokens, heads, channels]
  const void* locations = nullptr;  // [batch, queries, heads, levels, points, 2], (x, y), 0 and 1 are the map's outer edges
  const void* weights = nullptr;    // [batch, queries, heads, levels, points]
  const Level* geometry = nullptr;  // [levels]
  void* output = nullptr;           // [batch, queries, heads * channels]; forward only
  // Backward only; each gradient has the shape of what it is the gradient of, grad_value must be zero on entry.
  const void* grad_output = nullptr;
  void *grad_value = nullptr, *grad_locations = nullptr, *grad_weights = nullptr;
};

template <typename Real>
VD_HD Neighbours<Real> locate(Real location_x, Real location_y, const Level& level) {
  return find_neighbours(location_y * Real(level.height) - Real(0.5), location_x * Real(level.width) - Real(0.5),
                         level.height, level.width);
}

// sums[c] += weight * row[c] for a fixed number of channels.
template <int kChannels, typename T>
VD_HD void add_weighted(const T* row, Acc<T> weight, Acc<T>* sums) {
  for (int c = 0; c < kChannels; ++c) sums[c] += weight * load(row + c);
}

template <typename Real>
struct PointGradients {
  Real weight, location_x, location_y;
};

// Gradients of one sampling point. dots[k] is the sum over channels of grad_output times neighbour k's value, 0 for
// a neighbour outside the map; the derivative at an integer coordinate is the right-sided one.
template <typename Real>
VD_HD PointGradients<Real> point_gradients(const Neighbours<Real>& found, const Real dots[4], Real weight,
                                           const Level& level) {
  const Real up = Real(1) - found.down, left = Real(1) - found.right;
  PointGradients<Real> grad;
  grad.weight = up * (left * dots[0] + found.right * dots[1]) + found.down * (left * dots[2] + found.right * dots[3]);
  grad.location_x = Real(level.width) * weight * (up * (dots[1] - dots[0]) + found.down * (dots[3] - dots[2]));
  grad.location_y = Real(level.height) * weight * (left * (dots[2] - dots[0]) + found.right * (dots[3] - dots[1]));
  return grad;
}

}  // namespace visdeploy
