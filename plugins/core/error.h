// The one error of the library; bindings turn it into their engine's own.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace visdeploy {

struct OpError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// "op: what (seen: ...; expected: ...)"
[[noreturn]] void fail(const std::string& op, const std::string& what, const std::string& seen,
                       const std::string& expected);

// Runs work, keeps the message of anything thrown for vd_last_error(), returns 0 or 1.
template <typename Work>
int guarded(Work&& work) noexcept;

void remember_error(const char* message) noexcept;
const char* last_error() noexcept;

template <typename Work>
int guarded(Work&& work) noexcept {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    remember_error(error.what());
  } catch (...) {
    remember_error("an unknown C++ exception");
  }
  return 1;
}

}  // namespace visdeploy
