// Memory that kernels read and write: on a device, or on the host for the emulated plugins.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace visdeploy {
namespace harness {

class Memory {
 public:
  explicit Memory(bool on_host) : on_host_(on_host) {}

  void* allocate(size_t bytes) const {
    void* address = nullptr;
    if (on_host_) {
      address = std::malloc(bytes);
    } else {
      check("cudaMalloc", cudaMalloc(&address, bytes));
    }
    if (address == nullptr && bytes > 0) throw std::runtime_error("out of memory");
    return address;
  }

  void release(void* address) const {
    if (on_host_) {
      std::free(address);
    } else {
      check("cudaFree", cudaFree(address));
    }
  }

  void copy(void* to, const void* from, size_t bytes) const {
    if (bytes == 0) return;
    if (on_host_) {
      std::memcpy(to, from, bytes);
    } else {
      check("cudaMemcpy", cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
    }
  }

  // Waits for what was queued, and reports what went wrong on the device meanwhile.
  void finish() const {
    if (!on_host_) check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  }

 private:
  static void check(const char* what, cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
  }

  bool on_host_;
};

// A copy of some bytes where kernels reach them, surrounded by guards that a kernel must leave alone.
class Buffer {
 public:
  Buffer(const Memory& memory, const char* bytes, size_t size) : memory_(memory), size_(size) {
    guarded_ = static_cast<char*>(memory.allocate(size + 2 * kGuard));
    const std::string guard(kGuard, kPattern);
    memory.copy(guarded_, guard.data(), kGuard);
    memory.copy(guarded_ + kGuard, bytes, size);
    memory.copy(guarded_ + kGuard + size, guard.data(), kGuard);
  }
  ~Buffer() {
    try {
      memory_.release(guarded_);
    } catch (const std::exception&) {
      // A failed kernel was reported by finish() already.
    }
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* address() const { return guarded_ + kGuard; }

  void read(char* bytes) const {
    std::string all(size_ + 2 * kGuard, '\0');
    memory_.copy(all.data(), guarded_, all.size());
    const std::string guard(kGuard, kPattern);
    if (all.compare(0, kGuard, guard) != 0 || all.compare(kGuard + size_, kGuard, guard) != 0) {
      throw std::runtime_error("written outside of the tensor");
    }
    std::memcpy(bytes, all.data() + kGuard, size_);
  }

 private:
  static constexpr size_t kGuard = 256;  // keeps the alignment of cudaMalloc
  static constexpr char kPattern = '\x5a';

  const Memory& memory_;
  size_t size_;
  char* guarded_;
};

}  // namespace harness
}  // namespace visdeploy
