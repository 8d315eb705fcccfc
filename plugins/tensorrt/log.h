// Errors of plugins on their way to TensorRT's logger; nothing of them may cross into TensorRT as an exception.
#pragma once

#include <NvInferRuntime.h>

#include <exception>

namespace visdeploy {
namespace trt {

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// To TensorRT's logger, or to the standard error stream where the library was loaded by other means.
void log_error(const char* message) noexcept;

// The result of work, or failed, after the message of what it threw was logged.
template <typename Result, typename Work>
Result logged(Result failed, Work&& work) noexcept {
  try {
    return work();
  } catch (const std::exception& error) {
    log_error(error.what());
  } catch (...) {
    log_error("visdeploy_plugins: an unknown C++ exception");
  }
  return failed;
}

}  // namespace trt
}  // namespace visdeploy
