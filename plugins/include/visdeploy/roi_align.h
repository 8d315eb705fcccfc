// RoI align on a feature pyramid: the arithmetic, once for every engine.
//
//   level = clamp(floor(log2(sqrt(w * h) / finest_scale + 1e-6)), 0, levels - 1)
//   out[r, c, i, j] = mean over the samples (y, x) of bin (i, j) of  bilinear(level of features[batch[r], c], y, x)
//   y = box_y1 * scale - 0.5 + (i + (k + 0.5) / samples) * bin_height,  0 <= k < samples, and so x
//
// Rows and columns of a sample are independent of each other, and so are their weights: everything here is about one
// axis. Coordinates and sums are float whatever the stored type (double for double).
#pragma once

#include <math.h>

#include "visdeploy/host_device.h"

namespace visdeploy {

constexpr int kRoiAlignLevels = 8;
// Bounds that keep hostile calls finite: bins along an axis, samples along an axis of a bin, pixels of a coordinate.
constexpr int kRoiAlignBins = 1024;
constexpr int kRoiAlignSamples = 1024;
constexpr float kRoiAlignFarthest = 1e12f;

struct RoiAlignLevel {
  const void* feature = nullptr;  // [batch, channels, height, width]; forward only
  void* grad = nullptr;           // the same; backward only
  int32_t height = 0, width = 0;
  float scale = 0;  // cells per image pixel
};

// A call whose tensors have been checked; every tensor is contiguous.
struct MultiLevelRoiAlign {
  int64_t rois = 0, batch = 0, channels = 0;
  int32_t levels = 0, output_height = 0, output_width = 0;
  int32_t sampling_ratio = 0;  // samples along an axis of a bin; 0: one per cell, rounded up
  float finest_scale = 0;      // side, in image pixels, of the boxes at the lower end of level 0
  RoiAlignLevel level[kRoiAlignLevels];
  const void* boxes = nullptr;             // [rois, 4], x1, y1, x2, y2 in image pixels; float, double for double
  const int64_t* batch_indices = nullptr;  // [rois]
  void* output = nullptr;                  // [rois, channels, output_height, output_width]; forward only
  const void* grad_output = nullptr;       // the same; backward only
};

// Whether a box is sampled at all. NaN, infinite and absurdly far coordinates are not: their box gives zeros.
template <typename Real>
VD_HD bool is_usable(const Real* box) {
  bool usable = true;
  for (int i = 0; i < 4; ++i) usable &= (box[i] >= Real(-kRoiAlignFarthest)) & (box[i] <= Real(kRoiAlignFarthest));
  return usable;
}

// The level of a box. Compares with powers of two, which is floor(log2()) without its rounding, and always in float:
// all engines and dtypes choose alike. An area that is negative has no root and goes to level 0.
template <typename Real>
VD_HD int32_t roi_level(const Real* box, float finest_scale, int32_t levels) {
  const float width = static_cast<float>(box[2]) - static_cast<float>(box[0]);
  const float height = static_cast<float>(box[3]) - static_cast<float>(box[1]);
  const float size = sqrtf(width * height) / finest_scale + 1e-6f;
  int32_t level = 0;
  float threshold = 2.0f;
  for (int32_t l = 1; l < levels; ++l, threshold *= 2.0f) level += size >= threshold;
  return level;
}

// Where the bins of a box lie along one axis of its map, in cells whose centres are at integers.
template <typename Real>
struct RoiAxis {
  Real start, bin;  // bin is negative for a box that is turned around
  int32_t samples;  // per bin; 0 when there are none
  int32_t size;     // of the map
};

// A product that is rounded before it is added to anything. Fused into a multiply-add it would move samples by a last
// bit, from one side of a border to the other. The CPU's code is compiled without fusing.
VD_HD float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
VD_HD double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

template <typename Real>
VD_HD RoiAxis<Real> roi_axis(Real from, Real to, Real scale, int32_t bins, int32_t sampling_ratio, int32_t size) {
  RoiAxis<Real> axis;
  axis.start = rounded_product(from, scale) - Real(0.5);
  axis.bin = (rounded_product(to, scale) - Real(0.5) - axis.start) / Real(bins);
  axis.samples = sampling_ratio;
  axis.size = size;
  if (sampling_ratio == 0) {
    // Tested before it becomes an integer.
    const Real adaptive = axis.bin < Real(kRoiAlignSamples) ? axis.bin : Real(kRoiAlignSamples);
    axis.samples = adaptive > Real(0) ? static_cast<int32_t>(adaptive) : 0;
    axis.samples += Real(axis.samples) < adaptive;
  }
  return axis;
}

template <typename Real>
VD_HD Real sample_position(const RoiAxis<Real>& axis, int32_t bin, int32_t sample) {
  return axis.start + rounded_product(Real(bin), axis.bin) +
         rounded_product(Real(sample) + Real(0.5), axis.bin) / Real(axis.samples);
}

// The two cells that a sample lies between along one axis.
template <typename Real>
struct RoiTap {
  int32_t low;   // the cell; -1 when the sample does not count
  int32_t high;  // the next cell, or the same at the far border
  Real share;    // weight of high, that of low is 1 - share
};

// RoI align's own border rule: a sample counts if -1 <= position <= size, and one beyond the outermost cell centres
// takes the outermost cell. Positions are finite or NaN; the range is tested before they become integers.
template <typename Real>
VD_HD RoiTap<Real> roi_tap(Real position, int32_t size) {
  const bool inside = (position >= Real(-1)) & (position <= Real(size));
  position = (inside & (position > Real(0))) ? position : Real(0);
  const int32_t low = static_cast<int32_t>(position);
  const bool last = low >= size - 1;
  RoiTap<Real> tap;
  tap.low = inside ? (last ? size - 1 : low) : -1;
  tap.high = last ? size - 1 : low + 1;
  tap.share = last ? Real(0) : position - Real(low);
  return tap;
}

}  // namespace visdeploy
