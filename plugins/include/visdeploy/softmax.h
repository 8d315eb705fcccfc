// The parts of a softmax: exponentials of the distances from the largest of several numbers.
#pragma once

#include <math.h>

#include "visdeploy/host_device.h"

namespace visdeploy {

// A NaN is not larger than anything; it reaches the softmax through its own exponential.
template <typename Real>
VD_HD Real larger(Real a, Real b) {
  return b > a ? b : a;
}

// Below this distance from the largest number a float exponential is taken for zero; exp(-87) is 1.6e-38.
constexpr float kFarBelow = -87.0f;

// e^x for x <= 0 or NaN, to about one unit in the last place. Without a branch or a library call, so that it
// vectorises: x = k ln 2 + r, e^r is a Taylor polynomial (remainder 5e-9 where |r| <= ln 2 / 2), 2^k an exponent.
VD_HD float exponential(float x) {
  const bool near = x > kFarBelow;
  const float safe = near ? x : 0.0f;
  const int32_t k = static_cast<int32_t>(safe * 1.44269504f - 0.5f);
  const float whole = static_cast<float>(k);
  const float r = (safe - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float sum = 1.0f / 5040;
  sum = sum * r + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const float power = float_from_bits(static_cast<uint32_t>(k + 127) << 23);
  const float beyond = x <= kFarBelow ? 0.0f : x;
  return near ? sum * power : beyond;
}

VD_HD double exponential(double x) { return exp(x); }

}  // namespace visdeploy
