// Runs every plugin of a library against the CPU kernels on the same numbers, in every dtype:
//   visdeploy_tensorrt_harness libvisdeploy_tensorrt.so            on the current CUDA device
//   visdeploy_tensorrt_harness libvisdeploy_tensorrt_emulation.so --host
// and asks it for every combination of types. One line per case; the exit status is 1 when any is wrong.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tensorrt/harness/session.h"

namespace visdeploy {
namespace harness {
namespace {

struct Precision {
  const char* name;
  int32_t dtype;
  double step;  // between 1 and the next number
};
constexpr Precision kPrecisions[] = {
    {"float32", VD_FLOAT32, 0}, {"float16", VD_FLOAT16, 1.0 / 1024}, {"bfloat16", VD_BFLOAT16, 1.0 / 128}};

constexpr size_t kMostInputs = 16;  // of any op

// The inputs as the precision stores them.
Case in_precision(const Case& one, int32_t dtype) {
  Case rounded = one;
  for (size_t i = 0; i < rounded.inputs.size(); ++i) {
    const bool stays = std::find(one.kept.begin(), one.kept.end(), i) != one.kept.end();
    if (rounded.inputs[i].dtype == VD_FLOAT32 && !stays) rounded.inputs[i] = rounded.inputs[i].as(dtype);
  }
  return rounded;
}

// From the CPU kernel in float32, on the very numbers that the plugin gets.
Tensor expected_output(const Case& one) {
  std::vector<Tensor> inputs;
  for (const Tensor& each : one.inputs) {
    const bool real = each.dtype == VD_FLOAT32 || each.dtype == VD_FLOAT16 || each.dtype == VD_BFLOAT16;
    inputs.push_back(each.as(real ? VD_FLOAT32 : each.dtype));
  }
  std::vector<vd_tensor> views;
  for (const Tensor& each : inputs) views.push_back(each.view());
  std::vector<const vd_tensor*> pointers;
  for (const vd_tensor& each : views) pointers.push_back(&each);
  pointers.resize(std::max(pointers.size(), kMostInputs));
  const Tensor output(one.output_shape, VD_FLOAT32);
  const vd_tensor view = output.view();
  if (one.reference(pointers, &view) != 0) throw std::runtime_error(std::string("CPU kernel: ") + vd_last_error());
  return output;
}

// The largest error in units of what is allowed: 1e-5 of the largest value for another order of summation, and one
// step of the dtype for rounding the result.
double worst_error(const std::vector<double>& seen, const std::vector<double>& expected, double step) {
  double largest = 1, worst = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(seen[i] - expected[i]) / (1e-5 * largest + step * std::abs(expected[i]));
    worst = error <= worst ? worst : error;  // NaN is taken too
    if (std::isnan(error)) break;
  }
  return worst;
}

bool run_case(const Library& library, const Memory& memory, const Case& one, const Precision& precision) {
  const std::string name = one.op + " (" + one.what + ")";
  try {
    const Case rounded = in_precision(one, precision.dtype);
    const std::vector<double> expected = expected_output(rounded).values();
    const std::vector<double> seen = run_plugin(library, memory, rounded, precision.dtype).values();
    const double worst = worst_error(seen, expected, precision.step);
    const bool right = worst <= 1;
    std::printf("%-44s %-8s %8zu values  error %6.3f of the allowed  %s\n", name.c_str(), precision.name, seen.size(),
                worst, right ? "ok" : "WRONG");
    return right;
  } catch (const std::exception& error) {
    std::printf("%-44s %-8s FAILED: %s\n", name.c_str(), precision.name, error.what());
    return false;
  }
}

bool run_combinations(const Library& library, const Memory& memory, const Case& one) {
  try {
    const Combinations found = compare_combinations(library, memory, one);
    std::printf("%s takes %lld of %lld combinations of types, in the build and in the run  ok\n", one.op.c_str(),
                static_cast<long long>(found.taken), static_cast<long long>(found.asked));
    return found.taken > 0;
  } catch (const std::exception& error) {
    std::printf("%s combinations FAILED: %s\n", one.op.c_str(), error.what());
    return false;
  }
}

int run(const char* path, bool on_host) {
  const Library library(path);
  const Memory memory(on_host);
  int wrong = 0, total = 0;
  std::vector<std::string> covered;
  for (const Case& one : all_cases()) {
    if (std::find(covered.begin(), covered.end(), one.op) == covered.end()) {
      covered.push_back(one.op);
      wrong += run_combinations(library, memory, one) ? 0 : 1;
      ++total;
    }
    for (const Precision& precision : kPrecisions) {
      wrong += run_case(library, memory, one, precision) ? 0 : 1;
      ++total;
    }
  }
  std::printf("%d of %d cases right, %zu of %zu plugins covered\n", total - wrong, total, covered.size(),
              library.creators());
  return wrong == 0 && covered.size() == library.creators() ? 0 : 1;
}

}  // namespace
}  // namespace harness
}  // namespace visdeploy

int main(int count, char** arguments) {
  const bool on_host = count == 3 && std::string(arguments[2]) == "--host";
  if (count != 2 && !on_host) {
    std::fprintf(stderr, "usage: %s <plugin library> [--host]\n", arguments[0]);
    return 2;
  }
  try {
    return visdeploy::harness::run(arguments[1], on_host);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
