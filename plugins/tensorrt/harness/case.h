// One call of one plugin, and what it should give.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "visdeploy/c_api.h"

namespace visdeploy {
namespace harness {

// A tensor in host memory.
struct Tensor {
  std::vector<int64_t> shape;
  int32_t dtype;  // vd_dtype
  std::vector<char> bytes;

  Tensor(std::vector<int64_t> shape, int32_t dtype);
  // With the values, rounded to the dtype.
  Tensor(std::vector<int64_t> shape, int32_t dtype, const std::vector<double>& values);

  int64_t elements() const;
  std::vector<double> values() const;
  // The same values in another type.
  Tensor as(int32_t other) const { return Tensor(shape, other, values()); }
  vd_tensor view() const;
};

// An attribute as an ONNX node has it: real numbers or whole ones.
struct Attribute {
  std::string name;
  std::vector<double> values;
  bool real = false;
};

// The function of the CPU library: inputs and the output to fill, null after the last input. Returns its status.
using Reference = std::function<int(const std::vector<const vd_tensor*>& inputs, const vd_tensor* output)>;

struct Case {
  std::string op, what;  // what says how this one differs, in a word or two
  std::vector<Attribute> attributes;
  std::vector<Tensor> inputs;  // floating-point ones in float32
  std::vector<int64_t> output_shape;
  Reference reference;
  std::vector<size_t> kept;  // inputs that stay float32 in half precision
};

// Uniform in [low, high), the same on every machine.
Tensor random_tensor(std::vector<int64_t> shape, double low, double high, uint32_t seed);
Tensor integers(std::vector<int64_t> shape, const std::vector<double>& values, int32_t dtype = VD_INT64);

// Some of each plugin, inputs of size 0 included.
std::vector<Case> all_cases();

}  // namespace harness
}  // namespace visdeploy
