// Weighted sums of rows of channels, in registers. Part of cpu_kernel.cc, which is compiled once per instruction set:
// everything here has internal linkage.
#pragma once

#include "visdeploy/host_device.h"

namespace visdeploy {
namespace {

// kChannels neighbouring channels in as many registers as they take.
template <typename Real, int kChannels>
struct Channels {
#if defined(__AVX512F__)
  static constexpr int kBytes = 64;
#elif defined(__AVX__)
  static constexpr int kBytes = 32;
#else
  static constexpr int kBytes = 16;
#endif
  static constexpr int kWidest = kBytes / static_cast<int>(sizeof(Real));
  static constexpr int kLanes = kChannels < kWidest ? kChannels : kWidest;
  static constexpr int kVectors = kChannels / kLanes;
  // Aligned like its numbers, because rows are.
  typedef Real Vector __attribute__((vector_size(kLanes * sizeof(Real)), aligned(sizeof(Real)), may_alias));
  Vector vector[kVectors];

  VD_HD void add_weighted(const Real* row, Real weight) {
    for (int v = 0; v < kVectors; ++v) vector[v] += weight * reinterpret_cast<const Vector*>(row)[v];
  }

  template <typename T>
  VD_HD void add_weighted(const T* row, Real weight) {
    for (int v = 0; v < kVectors; ++v) {
      Vector wide;
      for (int c = 0; c < kLanes; ++c) wide[c] = load(row + v * kLanes + c);
      vector[v] += weight * wide;
    }
  }

  VD_HD void add(const Channels& other) {
    for (int v = 0; v < kVectors; ++v) vector[v] += other.vector[v];
  }

  VD_HD void store_to(Real* row) const {
    for (int v = 0; v < kVectors; ++v) reinterpret_cast<Vector*>(row)[v] = vector[v];
  }

  template <typename T>
  VD_HD void store_to(T* row) const {
    Real narrow[kChannels];
    store_to(narrow);
    for (int c = 0; c < kChannels; ++c) store(row + c, narrow[c]);
  }
};

template <int kCount>
struct Width {
  static constexpr int value = kCount;
};

// Runs sum(Width<k>, first) on pieces of k channels that make up all of them.
template <typename Sum>
VD_HD void for_channels(int64_t channels, const Sum& sum) {
  int64_t c = 0;
  for (; channels - c >= 32; c += 32) sum(Width<32>(), c);
  for (; channels - c >= 16; c += 16) sum(Width<16>(), c);
  for (; channels - c >= 8; c += 8) sum(Width<8>(), c);
  for (; channels - c >= 4; c += 4) sum(Width<4>(), c);
  for (; channels > c; ++c) sum(Width<1>(), c);
}

}  // namespace
}  // namespace visdeploy
