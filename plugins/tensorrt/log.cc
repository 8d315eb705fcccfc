#include "tensorrt/log.h"

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdio>

namespace visdeploy {
namespace trt {
// TensorRT 11 and TensorRT for RTX 1.7 made versioned interfaces of ILogger and ILoggerFinder, which moved log() and
// findLogger() within their virtual tables. One library serves both kinds, whatever headers it is compiled with, so
// both layouts stand here; every other interface that plugins use was versioned from the start. Not in an unnamed
// namespace: there the compiler sees that nothing implements them, and takes the calls for ones to pure functions.
struct Logger10 {
  virtual void log(int32_t severity, const char* message) noexcept = 0;
  virtual ~Logger10() = default;
};
struct LoggerFinder10 {
  virtual void* findLogger() = 0;
  virtual ~LoggerFinder10() = default;
};
struct Logger11 : nvinfer1::IVersionedInterface {
  virtual void log(int32_t severity, const char* message) noexcept = 0;
};
struct LoggerFinder11 : nvinfer1::IVersionedInterface {
  virtual void* findLogger() = 0;
};

namespace {

constexpr int32_t kErrorSeverity = 1;  // nvinfer1::ILogger::Severity::kERROR

enum class Layout { kUnknown, k10, k11 };

// As getInferLibVersion() counts: 101401 is TensorRT 10.14.1, 10701 is TensorRT for RTX 1.7.1.
Layout layout_of(int32_t version) {
  if (version >= 110000) return Layout::k11;
  if (version >= 100000) return Layout::k10;
  return version >= 10700 ? Layout::k11 : Layout::kUnknown;
}

std::atomic<Layout> layout{Layout::kUnknown};
std::atomic<void*> logger_finder{nullptr};
std::atomic<void* (*)()> logger_getter{nullptr};

void* find_logger() {
  void* finder = logger_finder;
  void* logger = nullptr;
  if (finder != nullptr && layout == Layout::k10) logger = static_cast<LoggerFinder10*>(finder)->findLogger();
  if (finder != nullptr && layout == Layout::k11) logger = static_cast<LoggerFinder11*>(finder)->findLogger();
  void* (*getter)() = logger_getter;
  return logger == nullptr && getter != nullptr ? getter() : logger;
}

bool log_to_tensorrt(const char* message) {
  void* logger = layout == Layout::kUnknown ? nullptr : find_logger();
  if (logger == nullptr) return false;
  if (layout == Layout::k10) {
    static_cast<Logger10*>(logger)->log(kErrorSeverity, message);
  } else {
    static_cast<Logger11*>(logger)->log(kErrorSeverity, message);
  }
  return true;
}

}  // namespace

void use_logger_of(const void* caller) noexcept {
  logger_finder = nullptr;
  logger_getter = nullptr;
  layout = Layout::kUnknown;
  Dl_info found;
  if (dladdr(caller, &found) == 0) return;
  // By its path and not by symbol alone: TensorRT's Python packages do not make its symbols global.
  void* library = dlopen(found.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return;
  const auto version = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibVersion"));
  logger_getter = reinterpret_cast<void* (*)()>(dlsym(library, "getLogger"));
  if (version != nullptr) layout = layout_of(version());
  dlclose(library);  // it stays loaded: it is running
}

void use_logger_finder(void* finder, const void* caller) noexcept {
  use_logger_of(caller);
  logger_finder = finder;
}

void log_error(const char* message) noexcept {
  try {
    if (log_to_tensorrt(message)) return;
  } catch (...) {
    // findLogger() is not declared noexcept; the message still has to come out.
  }
  std::fprintf(stderr, "%s\n", message);
}

}  // namespace trt
}  // namespace visdeploy
