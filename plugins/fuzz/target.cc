// libFuzzer's entry point; driver.cc stands in for libFuzzer where there is none.
#include "fuzz/target.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "visdeploy/c_api.h"

namespace visdeploy::fuzz {

void check_result(const char* op, int result) {
  if (result == 0) return;
  const char* message = vd_last_error();
  if (result == 1 && std::strncmp(message, op, std::strlen(op)) == 0 && std::strstr(message, "(seen: ")) return;
  std::fprintf(stderr, "%s returned %d with the message '%s'\n", op, result, message);
  std::abort();
}

}  // namespace visdeploy::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  visdeploy::fuzz::Bytes bytes(data, size);
  const auto& subjects = visdeploy::fuzz::Subject::all();
  subjects[bytes.byte() % subjects.size()](bytes);
  return 0;
}
