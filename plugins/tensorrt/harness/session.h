// Takes a plugin through the life that an engine gives it, without an engine: created from a node's attributes, asked
// for types and formats, serialised, created again from the serialised fields, cloned into a context, run.
#pragma once

#include <NvInferRuntime.h>

#include <memory>

#include "tensorrt/harness/case.h"
#include "tensorrt/harness/memory.h"

namespace visdeploy {
namespace harness {

class Library {
 public:
  // Throws std::runtime_error when the file is no plugin library.
  explicit Library(const char* path);
  nvinfer1::IPluginCreatorV3One& creator(const std::string& op) const;
  size_t creators() const { return static_cast<size_t>(count_); }

 private:
  nvinfer1::IPluginCreatorInterface* const* list_;
  int32_t count_ = 0;
};

// Combinations of element types that a plugin was asked about.
struct Combinations {
  int64_t asked = 0, taken = 0;
};

// Gives the plugin every combination of types on the tensors of a case, and each tensor once in another format:
// supportsFormatCombination() must take those that enqueue() takes, and no others. Throws std::runtime_error naming a
// combination on which the two differ.
Combinations compare_combinations(const Library& library, const Memory& memory, const Case& one);

// The output of the plugin for the inputs of a case as they are. Throws std::runtime_error saying which step failed.
Tensor run_plugin(const Library& library, const Memory& memory, const Case& one, int32_t dtype);

}  // namespace harness
}  // namespace visdeploy
