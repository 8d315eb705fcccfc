#include "tensorrt/log.h"

#include <atomic>
#include <cstdio>

namespace visdeploy {
namespace trt {
namespace {
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};
}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder = finder; }

void log_error(const char* message) noexcept {
  try {
    nvinfer1::ILoggerFinder* finder = logger_finder;
    nvinfer1::ILogger* logger = finder != nullptr ? finder->findLogger() : nullptr;
    if (logger != nullptr) return logger->log(nvinfer1::ILogger::Severity::kERROR, message);
  } catch (...) {
    // findLogger() is not declared noexcept; the message still has to come out.
  }
  std::fprintf(stderr, "%s\n", message);
}

}  // namespace trt
}  // namespace visdeploy
