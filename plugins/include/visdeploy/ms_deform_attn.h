// Multi-scale deformable attention: the arithmetic, once for every engine.
//
//   out[n, q, m, d] = sum over l, p of  weight[n, q, m, l, p] * bilinear(level l of value[n, :, m, d], y, x)
//   y = location_y * height_l - 0.5,  x = location_x * width_l - 0.5
//
// The fused form is given what a network's linear layers put out, and finds locations and weights itself:
//
//   weight = softmax over (l, p) of logit
//   location = reference + offset / (width_l, height_l)                    for reference points (x, y)
//   location = reference + offset / points * reference_size / 2            for reference boxes (x, y, width, height)
//
// Coordinates, softmax and sums are float whatever the stored type (double for double).
#pragma once

#include "visdeploy/bilinear.h"
#include "visdeploy/softmax.h"

namespace visdeploy {

// One level of the flattened pyramid: its map is value[n, start : start + height * width].
struct Level {
  int32_t height, width, start;
};

// A call whose tensors have been checked; every tensor is contiguous. value, output and their gradients are stored as
// one type T; locations, weights and their gradients as T too, or as float where T is a half-precision type.
struct MsDeformAttn {
  int64_t batch = 0, tokens = 0, heads = 0, channels = 0, levels = 0, queries = 0, points = 0;
  const void* value = nullptr;  // [batch, tokens, heads, channels]
  // [batch, queries, heads, levels, points, 2], (x, y): locations, where 0 and 1 are the map's outer edges; fused:
  // offsets
  const void* locations = nullptr;
  const void* weights = nullptr;  // [batch, queries, heads, levels, points]; fused: logits
  void* output = nullptr;         // [batch, queries, heads * channels]; forward only

  // Where the levels lie. CPU kernels read geometry, which has been checked against tokens. CUDA kernels read the two
  // tensors that callers have in device memory, which no host code can check.
  const Level* geometry = nullptr;          // [levels]
  const void* spatial_shapes = nullptr;     // [levels, 2], (height, width)
  const void* level_start_index = nullptr;  // [levels]
  bool wide_index = true;                   // both are int64_t, not int32_t

  // The fused form only.
  const void* references = nullptr;  // [batch, queries, levels, reference_size]
  int64_t reference_size = 0;        // 2: (x, y), or 4: (x, y, width, height); 0 in the plain form
  bool float_references = false;     // stored as float; otherwise like locations

  // Backward only; each gradient has the shape of what it is the gradient of, grad_value must be zero on entry.
  const void* grad_output = nullptr;
  void *grad_value = nullptr, *grad_locations = nullptr, *grad_weights = nullptr;
};

// Level l as the index tensors have it; a level of size zero, in which nothing lies, where it would leave the tokens.
VD_HD Level read_level(const MsDeformAttn& op, int64_t l) {
  int64_t height, width, start;
  if (op.wide_index) {
    height = static_cast<const int64_t*>(op.spatial_shapes)[2 * l];
    width = static_cast<const int64_t*>(op.spatial_shapes)[2 * l + 1];
    start = static_cast<const int64_t*>(op.level_start_index)[l];
  } else {
    height = static_cast<const int32_t*>(op.spatial_shapes)[2 * l];
    width = static_cast<const int32_t*>(op.spatial_shapes)[2 * l + 1];
    start = static_cast<const int32_t*>(op.level_start_index)[l];
  }
  // tokens is below 2^31, so that the product is taken of numbers that cannot overflow it.
  const bool fits = height > 0 && width > 0 && start >= 0 && height <= op.tokens && width <= op.tokens &&
                    start <= op.tokens && height * width <= op.tokens - start;
  if (!fits) return {0, 0, 0};
  return {static_cast<int32_t>(height), static_cast<int32_t>(width), static_cast<int32_t>(start)};
}

template <typename Real>
VD_HD Neighbours<Real> locate(Real location_x, Real location_y, const Level& level) {
  return find_neighbours(location_y * Real(level.height) - Real(0.5), location_x * Real(level.width) - Real(0.5),
                         level.height, level.width);
}

// Where a query's offsets count from on one level, and how far one unit of them reaches; all in pixels.
template <typename Real>
struct Origin {
  Real x, y, step_x, step_y;
};

// The fused form's origin for reference row `row` ((n, q, l) counted through); P is the type that locations are stored
// as. Pixels are found at once, without the way through locations in [0, 1], which would only lose digits.
template <typename P>
VD_HD Origin<Acc<P>> find_origin(const MsDeformAttn& op, int64_t row, const Level& level) {
  using Real = Acc<P>;
  Real reference[4] = {};
  for (int i = 0; i < 4; ++i) {
    if (i >= op.reference_size) continue;
    const int64_t at = row * op.reference_size + i;
    reference[i] = op.float_references ? Real(static_cast<const float*>(op.references)[at])
                                       : load(static_cast<const P*>(op.references) + at);
  }
  const Real width = Real(level.width), height = Real(level.height);
  Origin<Real> origin = {reference[0] * width - Real(0.5), reference[1] * height - Real(0.5), Real(1), Real(1)};
  if (op.reference_size == 4) {
    origin.step_x = reference[2] * width * (Real(0.5) / Real(op.points));
    origin.step_y = reference[3] * height * (Real(0.5) / Real(op.points));
  }
  return origin;
}

template <typename Real>
VD_HD Neighbours<Real> locate_offset(Real offset_x, Real offset_y, const Origin<Real>& origin, const Level& level) {
  return find_neighbours(origin.y + offset_y * origin.step_y, origin.x + offset_x * origin.step_x, level.height,
                         level.width);
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
