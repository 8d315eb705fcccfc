// What both directions of the CPU kernels do: laying out maps with channels last, finding and sampling points. Included
// only by cpu_kernel.cc, which is compiled once per instruction set.
#pragma once

#include "core/gemm_tile.h"
#include "visdeploy/deform_conv.h"

namespace visdeploy {
namespace {

constexpr int64_t kStrip = 256;  // pixels that are laid out at once

VD_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
VD_HD int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
VD_HD int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
VD_HD int64_t round_up(int64_t size, int64_t unit) { return parts_of(size, unit) * unit; }

// Cuts memory into aligned arrays. Without memory it only adds up what they take.
struct Arena {
  char* memory;
  int64_t bytes = 0;

  template <typename T>
  VD_HD T* take(int64_t count) {
    T* array = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + bytes);
    bytes += round_up(count * static_cast<int64_t>(sizeof(T)), kTileAlignment);
    return array;
  }
};

// rows[r][c] = planes[c][r] for a few rows; planes are `plane` apart and rows `row`.
template <typename From, typename To>
VD_HD void transpose(const From* planes, int64_t plane, int64_t channels, int64_t count, To* rows, int64_t row) {
  constexpr int64_t kSquare = 16;
  for (int64_t c = 0; c < channels; c += kSquare) {
    const int64_t width = smaller(kSquare, channels - c);
    for (int64_t r = 0; r < count; r += kSquare) {
      const int64_t height = smaller(kSquare, count - r);
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) store(rows + (r + y) * row + c + x, load(planes + (c + x) * plane + r + y));
      }
    }
  }
}

// Strip `strip` of image n, channels last, to where its pixels belong in `map`.
template <typename T>
VD_HD void lay_out_strip(const DeformConv& op, int64_t n, int64_t strip, Acc<T>* map) {
  const int64_t first = strip * kStrip;
  const T* planes = static_cast<const T*>(op.input) + n * op.channels * op.pixels() + first;
  transpose(planes, op.pixels(), op.channels, smaller(kStrip, op.pixels() - first), map + first * op.channels,
            op.channels);
}

// The points of one tap at neighbouring output positions, structure of arrays.
template <typename Real>
struct Points {
  Real *origin_y, *origin_x;  // of the positions, before tap and offset
  int32_t* index[4];
  Real* weight[4];  // 0 outside the map; the mask is in it where it was asked for
  Real *down, *right, *mask;

  VD_HD Points(Arena& arena, int64_t count) {
    origin_y = arena.take<Real>(count);
    origin_x = arena.take<Real>(count);
    for (int k = 0; k < 4; ++k) {
      index[k] = arena.take<int32_t>(count);
      weight[k] = arena.take<Real>(count);
    }
    down = arena.take<Real>(count);
    right = arena.take<Real>(count);
    mask = arena.take<Real>(count);
  }

  VD_HD void place(const DeformConv& op, int64_t first, int64_t count) {
    int64_t row = first / op.out_width, column = first % op.out_width;
    for (int64_t i = 0; i < count; ++i) {
      origin_y[i] = static_cast<Real>(tap_origin(op, 0, row, 0));
      origin_x[i] = static_cast<Real>(tap_origin(op, 1, column, 0));
      if (++column == op.out_width) {
        column = 0;
        ++row;
      }
    }
  }

  // Finds the points of one tap; everything is written `from` positions after the first.
  template <typename T>
  VD_HD void find(const DeformConv& op, int64_t n, int64_t offset_group, int64_t tap, int64_t first, int64_t count) {
    const int64_t plane = op.mask_plane(n, offset_group, tap);
    const auto y = static_cast<Real>(tap / op.kernel[1] * op.dilation[0]);
    const auto x = static_cast<Real>(tap % op.kernel[1] * op.dilation[1]);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const TapSample<Real> sample = sample_tap<T>(op, plane, origin_y[i] + y, origin_x[i] + x, first + i);
      for (int k = 0; k < 4; ++k) {
        index[k][i] = sample.found.index[k];
        weight[k][i] = sample.found.index[k] < 0 ? Real(0) : sample.mask * neighbour_weight(sample.found, k);
      }
      down[i] = sample.found.down;
      right[i] = sample.found.right;
      mask[i] = sample.mask;
    }
  }
};

// The rows of channels that one point reads. A neighbour outside the map reads zeros, so that nothing branches and
// infinite values elsewhere cannot leak in.
template <typename Real>
struct Rows {
  const Real* row[4];
  Real weight[4];

  VD_HD Rows(const Points<Real>& points, int64_t i, const Real* map, int64_t channels, const Real* zeros) {
    for (int k = 0; k < 4; ++k) {
      const int32_t index = points.index[k][i];
      row[k] = index < 0 ? zeros : map + index * channels;
      weight[k] = points.weight[k][i];
    }
  }
};

// The channels [begin, end) that one weight group and one offset group share.
struct Channels {
  int64_t group, offset_group, begin, end;
};

// Calls visit(Channels) for each such range of an offset group, in order.
template <typename Visit>
VD_HD void for_channels(const DeformConv& op, int64_t offset_group, const Visit& visit) {
  const int64_t end = (offset_group + 1) * op.offset_channels();
  for (int64_t begin = offset_group * op.offset_channels(); begin < end;) {
    const int64_t group = begin / op.group_channels();
    const int64_t next = smaller(end, (group + 1) * op.group_channels());
    visit(Channels{group, offset_group, begin, next});
    begin = next;
  }
}

}  // namespace
}  // namespace visdeploy
