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

// The output of the plugin for the inputs of a case as they are. Throws std::runtime_error saying which step failed.
Tensor run_plugin(const Library& library, const Memory& memory, const Case& one, int32_t dtype);

}  // namespace harness
}  // namespace visdeploy
