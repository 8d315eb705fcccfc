// Turns planes of pixels into rows of channels. Part of cpu_kernel.cc: compiled once per instruction set, local to that
// file.
#pragma once

#include <type_traits>
#include <utility>

#include "core/gemm_tile.h"

namespace visdeploy {
namespace {

VD_HD int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The lanes of a, and after them those of b, that are named. GCC has Clang's builtin from version 12 on; its own takes
// the numbers as a vector of integers as wide as the values.
template <int... kFrom, typename T>
VD_HD Vector<T> choose_lanes(const Vector<T>& a, const Vector<T>& b, T) {
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
  using Number = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  return __builtin_shuffle(a, b, Vector<Number>{kFrom...});
#else
  return __builtin_shufflevector(a, b, kFrom...);
#endif
}

template <int kStep, typename T, int... kLane>
VD_HD void swap_halves(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, kLane...>) {
  constexpr int kAll = kLanes<T>;
  const Vector<T> first = choose_lanes<(kLane & kStep ? kAll + kLane - kStep : kLane)...>(a, b, T());
  b = choose_lanes<(kLane & kStep ? kAll + kLane : kLane + kStep)...>(a, b, T());
  a = first;
}

// Turns a square of values round: exchanges its upper right and lower left quarters, then those of each quarter.
template <int kStep, typename T>
VD_HD void transpose(Vector<T> (&square)[kLanes<T>]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) {
    if ((i & kStep) == 0) {
      swap_halves<kStep, T>(square[i], square[i + kStep], std::make_integer_sequence<int, kLanes<T>>());
    }
  }
  if constexpr (kStep > 1) transpose<kStep / 2, T>(square);
}

// kLanes channels of kLanes neighbouring pixels.
template <typename T>
VD_HD void gather_square(const T* source, int64_t plane, int64_t channels, Acc<T>* row) {
  Vector<Acc<T>> square[kLanes<Acc<T>>];
#pragma GCC unroll 16
  for (int c = 0; c < kLanes<Acc<T>>; ++c) {
    Acc<T> values[kLanes<Acc<T>>];
    for (int i = 0; i < kLanes<Acc<T>>; ++i) values[i] = load(source + c * plane + i);
    square[c] = load_vector(values);
  }
  transpose<kLanes<Acc<T>> / 2, Acc<T>>(square);
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<Acc<T>>; ++i) store_vector(row + i * channels, square[i]);
}

// The other way round: rows of kLanes channels, `stride` apart, to kLanes neighbouring pixels of as many planes.
template <typename T>
VD_HD void scatter_square(const Acc<T>* row, int64_t stride, int64_t plane, T* target) {
  Vector<Acc<T>> square[kLanes<Acc<T>>];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<Acc<T>>; ++i) square[i] = load_vector(row + i * stride);
  transpose<kLanes<Acc<T>> / 2, Acc<T>>(square);
#pragma GCC unroll 16
  for (int c = 0; c < kLanes<Acc<T>>; ++c) {
    if constexpr (std::is_same_v<T, Acc<T>>) {
      store_vector(target + c * plane, square[c]);
    } else {
      Acc<T> values[kLanes<Acc<T>>];
      store_vector(values, square[c]);
      for (int i = 0; i < kLanes<Acc<T>>; ++i) store(target + c * plane + i, values[i]);
    }
  }
}

template <typename T>
void gather_rows(const void* planes, int64_t plane, int64_t channels, const int64_t* offsets, int64_t begin,
                 int64_t end, void* rows) {
  constexpr int kBlock = kLanes<Acc<T>>;
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = least(kBlock, end - first);
    const T* source = static_cast<const T*>(planes);
    Acc<T>* row = static_cast<Acc<T>*>(rows) + (first + 1) * channels;
    int64_t c = 0;
    if (count == kBlock && offsets[first + kBlock - 1] - offsets[first] == kBlock - 1) {
      for (; c + kBlock <= channels; c += kBlock)
        gather_square(source + c * plane + offsets[first], plane, channels, row + c);
    }
    for (; c < channels; ++c) {
      for (int64_t i = 0; i < count; ++i) row[i * channels + c] = load(source + c * plane + offsets[first + i]);
    }
  }
}

}  // namespace
}  // namespace visdeploy
