#include "tensorrt/harness/case.h"

#include <cstring>

#include "visdeploy/host_device.h"

namespace visdeploy {
namespace harness {
namespace {

template <typename T>
void write(const std::vector<double>& values, std::vector<char>& bytes) {
  for (size_t i = 0; i < values.size(); ++i) {
    T stored;
    store(&stored, static_cast<float>(values[i]));
    std::memcpy(bytes.data() + i * sizeof(T), &stored, sizeof(T));
  }
}

template <typename T>
void write_plain(const std::vector<double>& values, std::vector<char>& bytes) {
  for (size_t i = 0; i < values.size(); ++i) {
    const T stored = static_cast<T>(values[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &stored, sizeof(T));
  }
}

template <typename T>
double read(const char* bytes) {
  T stored;
  std::memcpy(&stored, bytes, sizeof(T));
  return static_cast<double>(load(&stored));
}

template <typename T>
double read_plain(const char* bytes) {
  T stored;
  std::memcpy(&stored, bytes, sizeof(T));
  return static_cast<double>(stored);
}

struct Storage {
  size_t size;
  void (*write)(const std::vector<double>&, std::vector<char>&);
  double (*read)(const char*);
};

Storage storage_of(int32_t dtype) {
  switch (dtype) {
    case VD_FLOAT16:
      return {2, write<Half>, read<Half>};
    case VD_BFLOAT16:
      return {2, write<BFloat16>, read<BFloat16>};
    case VD_INT64:
      return {8, write_plain<int64_t>, read_plain<int64_t>};
    case VD_INT32:
      return {4, write_plain<int32_t>, read_plain<int32_t>};
    case VD_BOOL:
      return {1, write_plain<uint8_t>, read_plain<uint8_t>};
    default:
      return {4, write<float>, read<float>};
  }
}

}  // namespace

Tensor::Tensor(std::vector<int64_t> sizes, int32_t type) : shape(std::move(sizes)), dtype(type) {
  bytes.assign(static_cast<size_t>(elements()) * storage_of(dtype).size, '\xff');  // NaN in floating-point types
}

Tensor::Tensor(std::vector<int64_t> sizes, int32_t type, const std::vector<double>& values)
    : Tensor(std::move(sizes), type) {
  storage_of(dtype).write(values, bytes);
}

int64_t Tensor::elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

std::vector<double> Tensor::values() const {
  const Storage storage = storage_of(dtype);
  std::vector<double> read;
  for (size_t i = 0; i < bytes.size(); i += storage.size) read.push_back(storage.read(bytes.data() + i));
  return read;
}

vd_tensor Tensor::view() const {
  return {const_cast<char*>(bytes.data()), shape.data(), nullptr, static_cast<int32_t>(shape.size()), dtype};
}

Tensor random_tensor(std::vector<int64_t> shape, double low, double high, uint32_t seed) {
  std::mt19937 engine(seed);
  Tensor tensor(std::move(shape), VD_FLOAT32);
  std::vector<double> values;
  // Not std::uniform_real_distribution, whose numbers differ between standard libraries.
  for (int64_t i = 0; i < tensor.elements(); ++i) values.push_back(low + (high - low) * engine() / 4294967296.0);
  return Tensor(tensor.shape, VD_FLOAT32, values);
}

Tensor integers(std::vector<int64_t> shape, const std::vector<double>& values, int32_t dtype) {
  return Tensor(std::move(shape), dtype, values);
}

}  // namespace harness
}  // namespace visdeploy
