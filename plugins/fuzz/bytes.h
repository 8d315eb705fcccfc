// The fuzzer's input as a stream of decisions. When it has run dry every decision is 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace visdeploy::fuzz {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : next_(data), end_(data + size) {}

  uint8_t byte() { return next_ == end_ ? 0 : *next_++; }

  // 0 to count - 1; count is at most 256.
  int64_t below(int64_t count) { return byte() % count; }

  int64_t between(int64_t least, int64_t most) { return least + below(most - least + 1); }

  // True for few first bytes, so that an input that has run dry decides for the ordinary.
  bool seldom() { return byte() >= 240; }

  uint64_t word() {
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | byte();
    return bits;
  }

  // A whole number that somebody may not have thought of.
  int64_t odd_integer() {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max(), kInt = std::numeric_limits<int32_t>::max();
    constexpr int64_t kOdd[] = {0, 1, -1, 2, 3, 7, 255, kInt, kInt + 1, -kInt - 1, 1ll << 32, 1ll << 62, kMost, -kMost};
    const uint8_t which = byte();
    if (which >= 224) return static_cast<int64_t>(word());
    const int64_t odd = kOdd[which % 14];
    // Unsigned, because it may pass the end of the range.
    return which < 112 ? odd : static_cast<int64_t>(static_cast<uint64_t>(odd) + static_cast<uint64_t>(below(5)) - 2);
  }

  // A number for a tensor: mostly within [-2, 2], now and then far away, infinite or none.
  double number() {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    constexpr double kOdd[] = {
        kInfinity,    -kInfinity,    -1,     1e4,     -1e4,   1e30, -3e38,
        2147483648.0, -2147483649.0, 9.3e18, -9.3e18, 5e-324, 0.5,  std::numeric_limits<double>::quiet_NaN()};
    const uint8_t value = byte();
    return value >= 242 ? kOdd[value - 242] : (value - 121) / 60.0;
  }

 private:
  const uint8_t* next_;
  const uint8_t* end_;
};

}  // namespace visdeploy::fuzz
