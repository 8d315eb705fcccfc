#include "core/error.h"

#include <cstring>

namespace visdeploy {
namespace {
// A plain array: it needs no destructor at thread exit and cannot fail to hold the news that memory ran out.
thread_local char message_of_thread[1024] = "";
}  // namespace

void fail(const std::string& op, const std::string& what, const std::string& seen, const std::string& expected) {
  throw OpError(op + ": " + what + " (seen: " + seen + "; expected: " + expected + ")");
}

void remember_error(const char* message) noexcept {
  std::strncpy(message_of_thread, message, sizeof(message_of_thread) - 1);
  message_of_thread[sizeof(message_of_thread) - 1] = '\0';
}

const char* last_error() noexcept { return message_of_thread; }

}  // namespace visdeploy
