// Bilinear sampling with zeros outside the map, the rule that all sampling ops share: pixel centres are at integers, a
// point counts only if -1 < y < height and -1 < x < width, and neighbours outside the map count as zero.
#pragma once

#include "visdeploy/host_device.h"

namespace visdeploy {

// Where a point lies: its top left neighbour and its distance from it.
template <typename Real>
struct Cell {
  bool inside;          // false for a point that counts nothing; row and column are 0 then
  int32_t row, column;  // from -1
  Real down, right;     // in [0, 1)
};

// Finds the cell of (y, x) without a branch, so that it vectorises. NaN, infinite and far away points are not inside:
// the range is tested on the floating-point numbers, before anything becomes an integer.
template <typename Real>
VD_HD Cell<Real> find_cell(Real y, Real x, Real height, Real width) {
  Cell<Real> cell;
  cell.inside = (y > Real(-1)) & (y < height) & (x > Real(-1)) & (x < width);
  y = cell.inside ? y : Real(0);
  x = cell.inside ? x : Real(0);
  cell.row = static_cast<int32_t>(y);
  cell.column = static_cast<int32_t>(x);
  cell.row -= y < Real(cell.row);
  cell.column -= x < Real(cell.column);
  cell.down = y - Real(cell.row);
  cell.right = x - Real(cell.column);
  return cell;
}

// The four neighbours of one point, in the order (top, left), (top, right), (bottom, left), (bottom, right).
template <typename Real>
struct Neighbours {
  int32_t index[4];  // row * width + column, or -1 where the neighbour lies outside the map
  Real down, right;  // distance of the point from the top left neighbour, in [0, 1)
};

// Finds the neighbours of (y, x) without a branch; points that are not inside have none. height and width are both at
// least 1, or both 0: then nothing has neighbours. height * width fits int32_t.
template <typename Real>
VD_HD Neighbours<Real> find_neighbours(Real y, Real x, int32_t height, int32_t width) {
  const Cell<Real> cell = find_cell(y, x, Real(height), Real(width));
  const bool top = cell.inside & (cell.row >= 0) & (cell.row < height), bottom = cell.inside & (cell.row + 1 < height);
  const bool left = (cell.column >= 0) & (cell.column < width), right = cell.column + 1 < width;
  const int32_t first = cell.row * width + cell.column;
  Neighbours<Real> found;
  found.index[0] = (top & left) ? first : -1;
  found.index[1] = (top & right) ? first + 1 : -1;
  found.index[2] = (bottom & left) ? first + width : -1;
  found.index[3] = (bottom & right) ? first + width + 1 : -1;
  found.down = cell.down;
  found.right = cell.right;
  return found;
}

// The weight of neighbour k, 0 <= k < 4, of a point in a Cell or with Neighbours.
template <template <typename> class Place, typename Real>
VD_HD Real neighbour_weight(const Place<Real>& place, int k) {
  return (k & 2 ? place.down : Real(1) - place.down) * (k & 1 ? place.right : Real(1) - place.right);
}

}  // namespace visdeploy
