#include "core/tensor.h"

#include <algorithm>

#include "core/error.h"

namespace visdeploy {

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string dtype_text(int32_t dtype) {
  switch (dtype) {
    case VD_FLOAT32:
      return "float32";
    case VD_FLOAT64:
      return "float64";
    case VD_FLOAT16:
      return "float16";
    case VD_BFLOAT16:
      return "bfloat16";
    case VD_INT64:
      return "int64";
    case VD_INT32:
      return "int32";
    case VD_BOOL:
      return "bool";
    default:
      return "another dtype";
  }
}

TensorCheck::TensorCheck(const char* op, const char* name, const vd_tensor* tensor, int rank)
    : op_(op), name_(name), tensor_(tensor) {
  const std::string what = "tensor " + std::string(name);
  if (tensor == nullptr) fail(op, what, "a null pointer", "a tensor");
  if (tensor->rank < 0 || (tensor->rank > 0 && tensor->shape == nullptr)) fail(op, what, "no shape", "a shape");
  if (tensor->rank != rank) {
    fail(op, what + " has the wrong number of dimensions", std::to_string(tensor->rank) + " in " + shape_text(shape()),
         std::to_string(rank));
  }
  for (int axis = 0; axis < rank; ++axis) {
    if (dim(axis) < 0) fail(op, what + " has a negative dimension", shape_text(shape()), "none below 0");
  }
  if (elements() > 0 && tensor->data == nullptr) fail(op, what + " has no data", "a null pointer", "an address");
}

const TensorCheck& TensorCheck::has_dtype(std::initializer_list<int32_t> allowed) const {
  if (std::find(allowed.begin(), allowed.end(), dtype()) != allowed.end()) return *this;
  std::string expected;
  for (const int32_t each : allowed) expected += (expected.empty() ? "" : " or ") + dtype_text(each);
  fail(op_, "tensor " + std::string(name_) + " has the wrong dtype", dtype_text(dtype()), expected);
}

const TensorCheck& TensorCheck::has_shape(const Shape& expected) const {
  if (shape() == expected) return *this;
  fail(op_, "tensor " + std::string(name_) + " has the wrong shape", shape_text(shape()), shape_text(expected));
}

const TensorCheck& TensorCheck::is_contiguous() const {
  if (tensor_->strides == nullptr || elements() == 0) return *this;
  int64_t stride = 1;
  for (int axis = tensor_->rank - 1; axis >= 0; --axis) {
    if (dim(axis) != 1 && tensor_->strides[axis] != stride) {
      fail(op_, "tensor " + std::string(name_) + " is not contiguous",
           "strides " + shape_text(Shape(tensor_->strides, tensor_->strides + tensor_->rank)) + " for shape " +
               shape_text(shape()),
           "a contiguous tensor");
    }
    stride *= dim(axis);
  }
  return *this;
}

int64_t TensorCheck::elements() const {
  // Dimensions of zero first: they make the product small however large the others are.
  if (std::count(tensor_->shape, tensor_->shape + tensor_->rank, 0) > 0) return 0;
  int64_t product = 1;
  for (int axis = 0; axis < tensor_->rank; ++axis) {
    if (__builtin_mul_overflow(product, dim(axis), &product)) {
      fail(op_, "tensor " + std::string(name_) + " is too large", shape_text(shape()), "fewer than 2^63 elements");
    }
  }
  return product;
}

}  // namespace visdeploy
