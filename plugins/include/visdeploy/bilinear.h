// Bilinear sampling with zeros outside the map, the rule that all sampling ops share: pixel centres are at integers, a
// point counts only if -1 < y < height and -1 < x < width, and neighbours outside the map count as zero.
#pragma once

#include "visdeploy/host_device.h"

namespace visdeploy {

// The four neighbours of one point, in the order (top, left), (top, right), (bottom, left), (bottom, right).
template <typename Real>
struct Neighbours {
  int32_t index[4];  // row * width + column, or -1 where the neighbour lies outside the map
  Real down, right;  // distance of the point from the top left neighbour, in [0, 1)
};

// Finds the neighbours of (y, x) without a branch. NaN, infinite and far away points have no neighbours: the range is
// tested on the floating-point numbers, before anything becomes an integer. height and width are both at least 1, or
// both 0: then nothing has neighbours. height * width fits int32_t.
template <typename Real>
VD_HD Neighbours<Real> find_neighbours(Real y, Real x, int32_t height, int32_t width) {
  const bool inside = (y > Real(-1)) & (y < Real(height)) & (x > Real(-1)) & (x < Real(width));
  y = inside ? y : Real(0);
  x = inside ? x : Real(0);
  int32_t row = static_cast<int32_t>(y);
  int32_t column = static_cast<int32_t>(x);
  row -= y < Real(row);
  column -= x < Real(column);
  const bool top = inside & (row >= 0) & (row < height), bottom = inside & (row + 1 < height);
  const bool left = (column >= 0) & (column < width), right = column + 1 < width;
  const int32_t first = row * width + column;
  Neighbours<Real> found;
  found.index[0] = (top & left) ? first : -1;
  found.index[1] = (top & right) ? first + 1 : -1;
  found.index[2] = (bottom & left) ? first + width : -1;
  found.index[3] = (bottom & right) ? first + width + 1 : -1;
  found.down = y - Real(row);
  found.right = x - Real(column);
  return found;
}

// The weight of neighbour k, 0 <= k < 4.
template <typename Real>
VD_HD Real neighbour_weight(const Neighbours<Real>& found, int k) {
  return (k & 2 ? found.down : Real(1) - found.down) * (k & 1 ? found.right : Real(1) - found.right);
}

}  // namespace visdeploy
