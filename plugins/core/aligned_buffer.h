// Memory for kernels: uninitialised, aligned to a cache line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace visdeploy {

class AlignedBuffer {
 public:
  // Throws std::bad_alloc.
  explicit AlignedBuffer(int64_t bytes)
      : memory_(std::aligned_alloc(kAlignment, (static_cast<size_t>(bytes) / kAlignment + 1) * kAlignment)) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }

  void* get() const { return memory_.get(); }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
};

}  // namespace visdeploy
