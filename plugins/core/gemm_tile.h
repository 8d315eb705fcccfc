// A matrix product in registers, for CPU kernels that bring their rows from anywhere: sums += rows x panel.
//
//   rows    kTileRows addresses for each of `pieces` pieces; a row is its pieces one after the other, each of them
//           `depth` neighbouring values. Nothing is copied: a piece may lie in a tensor, in a tile of sampled values,
//           or be shared with other rows. Rows of which there are too few point to any readable ones.
//   panel   pieces * depth rows of `width` columns, one of the panels that pack_weights makes, or a part of it
//   sums    kTileRows rows of `width` columns, `stride` apart; on entry what is to be added to, a bias for example
//
// A matrix of weights is packed once: Panels says how large that is and where its panels are. All of them together want
// to be in the L2 cache with the rows (as few pieces of all rows at a time as that takes), one panel in L1.
//
// Each sum is taken over depth in ascending order in one register, so that it does not depend on how rows and columns
// are shared out. Included only by files that are compiled once per instruction set; all is local to the file, because
// the linker would merge functions of one name that were compiled for different machines.
#pragma once

#include "visdeploy/host_device.h"

namespace visdeploy {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kPanelVectors = 4;  // 24 sums, 4 of the panel and 1 value: 29 of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kPanelVectors = 2;  // 12 sums, 2 of the panel and 1 value: 15 of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kPanelVectors = 2;
#endif
constexpr int kTileRows = 6;
constexpr int kTileAlignment = 64;

template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
constexpr int kPanelWidth = kPanelVectors * kLanes<T>;

// A vector, and one in memory, aligned as its elements are. Only loads and stores may use the latter: through arrays
// and references Clang forgets that it is less aligned.
template <typename T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
  typedef T InMemory __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

template <typename T>
VD_HD Vector<T> load_vector(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::InMemory*>(p);
}

template <typename T>
VD_HD void store_vector(T* p, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::InMemory*>(p) = value;
}

template <int kVectors, typename T>
VD_HD void multiply_tile(const T* const* rows, int64_t pieces, int64_t depth, const T* panel, T* sums, int64_t stride) {
  Vector<T> tile[kTileRows][kVectors];
#pragma GCC unroll 8
  for (int m = 0; m < kTileRows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) tile[m][v] = load_vector(sums + m * stride + v * kLanes<T>);
  }
  for (int64_t piece = 0; piece < pieces; ++piece, rows += kTileRows) {
    const T *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3], *row4 = rows[4], *row5 = rows[5];
    for (int64_t k = 0; k < depth; ++k, panel += kVectors * kLanes<T>) {
      Vector<T> right[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) right[v] = load_vector(panel + v * kLanes<T>);
      const T left[kTileRows] = {row0[k], row1[k], row2[k], row3[k], row4[k], row5[k]};
#pragma GCC unroll 8
      for (int m = 0; m < kTileRows; ++m) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) tile[m][v] += left[m] * right[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kTileRows; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store_vector(sums + m * stride + v * kLanes<T>, tile[m][v]);
  }
}

// The tile for a panel of 1 to kPanelVectors vectors.
template <typename T>
VD_HD void multiply_panel(int vectors, const T* const* rows, int64_t pieces, int64_t depth, const T* panel, T* sums,
                          int64_t stride) {
  if (vectors == kPanelVectors) return multiply_tile<kPanelVectors>(rows, pieces, depth, panel, sums, stride);
  if constexpr (kPanelVectors > 2) {
    if (vectors == 3) return multiply_tile<3>(rows, pieces, depth, panel, sums, stride);
    if (vectors == 2) return multiply_tile<2>(rows, pieces, depth, panel, sums, stride);
  }
  multiply_tile<1>(rows, pieces, depth, panel, sums, stride);
}

// A matrix of depth rows and any number of columns cut into panels of kPanelWidth columns; the last one has as few
// vectors as its columns need. Columns that fill up a vector are zero.
template <typename T>
struct Panels {
  int64_t columns, depth;

  VD_HD int64_t count() const { return (columns + kPanelWidth<T> - 1) / kPanelWidth<T>; }
  // Columns of all panels with those that fill up.
  VD_HD int64_t padded_columns() const { return (columns + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }
  VD_HD int64_t size() const { return padded_columns() * depth; }
  VD_HD int vectors(int64_t panel) const {
    const int64_t left = padded_columns() - panel * kPanelWidth<T>;
    return left < kPanelWidth<T> ? static_cast<int>(left / kLanes<T>) : kPanelVectors;
  }
  // Where a panel begins; its row k is k * vectors(panel) * kLanes<T> further on.
  VD_HD int64_t start(int64_t panel) const { return panel * kPanelWidth<T> * depth; }
};

// Packs convolution weights [outputs, channels, taps] for rows that hold, tap by tap, the channels next to each other:
// columns are outputs, row tap * channels + c. Does panels [begin, end).
template <typename T>
VD_HD void pack_weights(const T* weight, int64_t outputs, int64_t channels, int64_t taps, int64_t begin, int64_t end,
                        Acc<T>* packed) {
  const Panels<Acc<T>> panels = {outputs, channels * taps};
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t width = panels.vectors(panel) * kLanes<Acc<T>>;
    const int64_t first = panel * kPanelWidth<Acc<T>>;
    const int64_t filled = outputs - first < width ? outputs - first : width;
    Acc<T>* const start = packed + panels.start(panel);
    for (int64_t k = 0; k < channels * taps; ++k) {
      const T* column = weight + first * channels * taps + k;
      Acc<T>* row = start + (k % taps * channels + k / taps) * width;
      for (int64_t o = 0; o < filled; ++o) row[o] = load(column + o * channels * taps);
      for (int64_t o = filled; o < width; ++o) row[o] = Acc<T>(0);
    }
  }
}

}  // namespace
}  // namespace visdeploy
