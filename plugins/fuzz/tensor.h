// A caller's tensor, right at first and then spoilt. Its memory ends where its last element does, so that
// AddressSanitizer sees every read or write beyond.
#pragma once

#include <memory>
#include <vector>

#include "core/tensor.h"
#include "fuzz/bytes.h"

namespace visdeploy::fuzz {

class Tensor {
 public:
  Tensor(Shape shape, int32_t dtype) : shape_(std::move(shape)), dtype_(dtype) {}

  // An optional one that is not given.
  static Tensor absent() {
    Tensor tensor({}, VD_OTHER);
    tensor.present_ = false;
    return tensor;
  }

  // Contents; what is not set is made of the input's numbers. Only for int64 and int32 tensors.
  Tensor& holding(std::vector<int64_t> values) {
    values_ = std::move(values);
    return *this;
  }

  // One thing that a caller could get wrong.
  void spoil(Bytes& bytes);

  // Allocates and fills. A tensor that claims more than a few thousand elements has no data: a caller may well own
  // such memory, a fuzzer does not.
  const vd_tensor* prepare(Bytes& bytes);

 private:
  bool present_ = true, null_shape_ = false, null_data_ = false, has_strides_ = false;
  Shape shape_, strides_;
  int32_t dtype_, rank_offset_ = 0;
  std::vector<int64_t> values_;
  std::unique_ptr<int64_t[]> exact_shape_, exact_strides_;
  std::unique_ptr<char[]> memory_;
  vd_tensor view_ = {};
};

// A floating-point type.
int32_t any_float(Bytes& bytes);

// Spoils none, one or two of the tensors.
void spoil_some(std::vector<Tensor>& tensors, Bytes& bytes);

// What the C interface takes for the tensors.
std::vector<const vd_tensor*> prepare_all(std::vector<Tensor>& tensors, Bytes& bytes);

}  // namespace visdeploy::fuzz
