// Checks of tensors that callers hand in, with messages that name op, tensor, seen and expected.
#pragma once

#include <string>
#include <vector>

#include "visdeploy/c_api.h"

namespace visdeploy {

using Shape = std::vector<int64_t>;

std::string shape_text(const Shape& shape);
std::string dtype_text(int32_t dtype);

// One tensor of a call, under the name that messages use for it.
class TensorCheck {
 public:
  TensorCheck(const char* op, const char* name, const vd_tensor* tensor, int rank);

  int64_t dim(int axis) const { return tensor_->shape[axis]; }
  int32_t dtype() const { return tensor_->dtype; }
  Shape shape() const { return Shape(tensor_->shape, tensor_->shape + tensor_->rank); }
  void* data() const { return tensor_->data; }

  const TensorCheck& has_dtype(std::initializer_list<int32_t> allowed) const;
  const TensorCheck& has_shape(const Shape& expected) const;
  const TensorCheck& is_contiguous() const;
  // The product of the dimensions; an error when it does not fit int64_t.
  int64_t elements() const;

 private:
  const char* op_;
  const char* name_;
  const vd_tensor* tensor_;
};

}  // namespace visdeploy
