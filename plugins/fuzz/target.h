// What the fuzzer calls: one subject per op, and others. A subject joins by defining a constant of this type.
#pragma once

#include <vector>

#include "fuzz/bytes.h"

namespace visdeploy::fuzz {

using Run = void (*)(Bytes& bytes);

class Subject {
 public:
  explicit Subject(Run run) { all().push_back(run); }

  static std::vector<Run>& all() {
    static std::vector<Run> subjects;
    return subjects;
  }
};

// Ends the process when a call of the C interface returned something it may not: 1 without a message that starts with
// the op's name, or another number than 0 and 1.
void check_result(const char* op, int result);

}  // namespace visdeploy::fuzz
