// Where the sampling points of a batch of rows lie and what they count, found for all points at once. Part of
// cpu_kernel.cc, which is compiled once per instruction set: everything here has internal linkage.
#pragma once

#include "ms_deform_attn/cpu_kernel.h"

namespace visdeploy {
namespace {

// Scratch as arrays by point, row after row.
template <typename Real>
struct Points {
  Real* pixel;          // (x, y)
  Real* attention;      // of the point
  Real* weight[4];      // of each neighbour
  int32_t* token[4];    // of each neighbour; in packed maps of the first one alone, times channels
  Real *origin, *step;  // fused form, of one row: where its offsets count from, and how far they reach
  void* rest;           // of the scratch
};

template <typename Real>
Points<Real> points_in(void* scratch, const MsDeformAttn& op) {
  const int64_t count = padded_points(op);
  // A load of one number from a vector that was stored across two cache lines would have to wait for it.
  Real* next =
      reinterpret_cast<Real*>((reinterpret_cast<uintptr_t>(scratch) + kCacheLine - 1) / kCacheLine * kCacheLine);
  Points<Real> points;
  points.pixel = next;
  points.attention = next + 2 * count;
  // Nobody reads what comes of the points that fill up the last vector, but they are computed.
  for (int64_t i = 0; i < 3 * count; ++i) next[i] = Real(0);
  next += 3 * count;
  for (int k = 0; k < 4; ++k, next += count) points.weight[k] = next;
  points.origin = next;
  points.step = next + 2 * count;
  auto* token = reinterpret_cast<int32_t*>(next + 4 * count);
  for (int k = 0; k < 4; ++k, token += count) points.token[k] = token;
  points.rest = token;
  return points;
}

// The loops over points stand in functions of their own, which tell the compiler that arrays do not overlap: else they
// would not vectorise.

template <typename P, typename Real>
__attribute__((noinline)) void find_pixels(const P* __restrict location, const Real* __restrict size, int64_t count,
                                           Real* __restrict pixel) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) pixel[i] = load(location + i) * size[i] - Real(0.5);
}

template <typename P, typename Real>
__attribute__((noinline)) void find_offset_pixels(const P* __restrict offset, const Real* __restrict origin,
                                                  const Real* __restrict step, int64_t count, Real* __restrict pixel) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) pixel[i] = origin[i] + load(offset + i) * step[i];
}

template <typename P, typename Real>
__attribute__((noinline)) void read_numbers(const P* __restrict from, int64_t count, Real* __restrict to) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) to[i] = load(from + i);
}

// Puts a softmax in the place of its logits. Largest and sum are kept in several lanes: one alone would make every
// number wait for the one before.
template <typename Real>
__attribute__((noinline)) void softmax(Real* __restrict number, int64_t count) {
  constexpr int kLanes = 8;
  const int64_t whole = count / kLanes * kLanes;
  Real lanes[kLanes];
  Real largest = number[0];
  for (int j = 0; j < kLanes; ++j) lanes[j] = largest;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = larger(lanes[j], number[i + j]);
  }
  for (int j = 0; j < kLanes; ++j) largest = larger(largest, lanes[j]);
  for (int64_t i = whole; i < count; ++i) largest = larger(largest, number[i]);
  for (int64_t i = 0; i < count; ++i) number[i] = exponential(number[i] - largest);
  for (int j = 0; j < kLanes; ++j) lanes[j] = Real(0);
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += number[i + j];
  }
  Real total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  for (int64_t i = whole; i < count; ++i) total += number[i];
  for (int64_t i = 0; i < count; ++i) number[i] = number[i] / total;
}

template <typename P>
void find_origins(const MsDeformAttn& op, int64_t query, Acc<P>* origin, Acc<P>* step) {
  for (int64_t l = 0; l < op.levels; ++l) {
    const Origin<Acc<P>> found = find_origin<P>(op, query * op.levels + l, op.geometry[l]);
    for (int64_t p = 0; p < op.points; ++p, origin += 2, step += 2) {
      origin[0] = found.x;
      origin[1] = found.y;
      step[0] = found.step_x;
      step[1] = found.step_y;
    }
  }
}

// Pixels and attention of rows `row`, `row + apart`, ... among the (n, q, m) ones.
template <typename P, bool kFused>
VD_HD void read_rows(const MsDeformAttn& op, const PointLevels<Acc<P>>& levels, int64_t row, int64_t apart,
                     int64_t rows, const Points<Acc<P>>& points) {
  const int64_t count = op.levels * op.points;
  for (int64_t r = 0; r < rows; ++r, row += apart) {
    const P* location = static_cast<const P*>(op.locations) + row * count * 2;
    Acc<P>* pixel = points.pixel + r * count * 2;
    Acc<P>* attention = points.attention + r * count;
    read_numbers(static_cast<const P*>(op.weights) + row * count, count, attention);
    if constexpr (kFused) {
      // Heads share their query's origins.
      if (r == 0 || apart > 1 || row % op.heads == 0) find_origins<P>(op, row / op.heads, points.origin, points.step);
      find_offset_pixels(location, points.origin, points.step, count * 2, pixel);
      softmax(attention, count);
    } else {
      find_pixels(location, levels.size, count * 2, pixel);
    }
  }
}

// Offset of the first neighbour in a packed map, and the weight of each. count is a multiple of kVectorPoints.
template <typename Real>
__attribute__((noinline)) void find_packed(const PointLevels<Real>& levels, int32_t channels, int64_t count,
                                           const Points<Real>& points) {
  const Real *size = levels.size, *pixel = points.pixel, *attention = points.attention;
  const int32_t *stride = levels.stride, *start = levels.start, *nowhere = levels.nowhere;
  int32_t* token = points.token[0];
  Real* const weight[4] = {points.weight[0], points.weight[1], points.weight[2], points.weight[3]};
  count = count / kVectorPoints * kVectorPoints;  // tells the compiler
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const Cell<Real> cell = find_cell(pixel[2 * i + 1], pixel[2 * i], size[2 * i + 1], size[2 * i]);
    const int32_t first = start[i] + cell.row * stride[i] + cell.column;
    const Real share = cell.inside ? attention[i] : Real(0);
    token[i] = (cell.inside ? first : nowhere[i]) * channels;
    for (int k = 0; k < 4; ++k) weight[k][i] = share * neighbour_weight(cell, k);
  }
}

// Token and weight of each neighbour in value itself; -1 and 0 outside the map.
template <typename Real>
__attribute__((noinline)) void find_direct(const PointLevels<Real>& levels, int64_t count, const Points<Real>& points) {
  const Real *size = levels.size, *pixel = points.pixel, *attention = points.attention;
  const int32_t *stride = levels.stride, *start = levels.start;
  int32_t* const token[4] = {points.token[0], points.token[1], points.token[2], points.token[3]};
  Real* const weight[4] = {points.weight[0], points.weight[1], points.weight[2], points.weight[3]};
  count = count / kVectorPoints * kVectorPoints;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const Neighbours<Real> found =
        find_neighbours(pixel[2 * i + 1], pixel[2 * i], static_cast<int32_t>(size[2 * i + 1]), stride[i]);
    for (int k = 0; k < 4; ++k) {
      const bool there = found.index[k] >= 0;
      token[k][i] = there ? start[i] + found.index[k] : -1;
      weight[k][i] = there ? attention[i] * neighbour_weight(found, k) : Real(0);
    }
  }
}

}  // namespace
}  // namespace visdeploy
