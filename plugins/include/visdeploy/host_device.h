// What the arithmetic headers need from the compiler: one spelling for host and device functions, and the value
// types that tensors are stored in. No engine and no standard library beyond <cstdint>.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

// Forced inlining is not a matter of speed alone: the CPU kernels compile these templates several times with different
// instruction sets, and an out-of-line copy could be merged by the linker into one that the machine cannot run.
#if defined(__CUDACC__)
#define VD_HD __host__ __device__ __forceinline__
#else
#define VD_HD inline __attribute__((always_inline))
#endif

namespace visdeploy {

// IEEE 754 binary16 and bfloat16 as storage; arithmetic is done in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

VD_HD float float_from_bits(uint32_t bits) {
  union {
    uint32_t u;
    float f;
  } word;
  word.u = bits;
  return word.f;
}

VD_HD uint32_t bits_from_float(float value) {
  union {
    float f;
    uint32_t u;
  } word;
  word.f = value;
  return word.u;
}

// The type that values of storage type T are computed in: float, or double for double.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <typename T>
using Acc = typename Accumulator<T>::type;

VD_HD float load(const float* p) { return *p; }
VD_HD double load(const double* p) { return *p; }
VD_HD float load(const BFloat16* p) { return float_from_bits(static_cast<uint32_t>(p->bits) << 16); }

// Branch-free, so that it vectorises without half-precision instructions: exponent and mantissa are moved into place
// and a multiplication by 2^112 corrects the bias, subnormals included.
VD_HD float load(const Half* p) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(p->bits));
#else
  const uint32_t half = p->bits;
  const float scaled = float_from_bits((half & 0x7fffu) << 13) * float_from_bits(0x77800000u);
  const uint32_t infinite = (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return float_from_bits(bits_from_float(scaled) | infinite | ((half & 0x8000u) << 16));
#endif
}

VD_HD void store(float* p, float value) { *p = value; }
VD_HD void store(double* p, double value) { *p = value; }

// Round to nearest even; NaN stays NaN.
VD_HD void store(BFloat16* p, float value) {
  const uint32_t bits = bits_from_float(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  p->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Round to nearest even; beyond 65504 becomes infinite, NaN stays NaN.
VD_HD void store(Half* p, float value) {
#if defined(__CUDA_ARCH__)
  p->bits = __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = bits_from_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal result: adding 0.5 lets the float unit shift and round to multiples of 2^-24.
    half = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  p->bits = static_cast<uint16_t>(sign | half);
#endif
}

}  // namespace visdeploy
