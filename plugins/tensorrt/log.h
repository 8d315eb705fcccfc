// Errors of plugins on their way to TensorRT's logger; nothing of them may cross into TensorRT as an exception.
#pragma once

#include <exception>

namespace visdeploy {
namespace trt {

// Remembers whose logger to use: that of the TensorRT library that holds a code address, the one that loads the
// plugins. Several may be in one process (TensorRT for RTX beside TensorRT); the last to load plugins gets the
// messages.
void use_logger_of(const void* caller) noexcept;

// The same, and the nvinfer1::ILoggerFinder that it hands over: it knows the logger of the engine that is running on
// the calling thread, and none outside of one.
void use_logger_finder(void* finder, const void* caller) noexcept;

// To TensorRT's logger, or to the standard error stream while it has none.
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
