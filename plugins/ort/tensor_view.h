// ONNX Runtime's tensors and errors as the library's own.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "visdeploy/c_api.h"

namespace visdeploy {

// Runs work and turns anything thrown into ONNX Runtime's status; nothing may be thrown into the engine.
template <typename Work>
OrtStatusPtr ort_guarded(Work&& work) noexcept {
  return guarded(work) == 0 ? nullptr : Ort::GetApi().CreateStatus(ORT_INVALID_ARGUMENT, last_error());
}

namespace ort {

// A vd_tensor that owns its shape; valid while the kernel context is.
class TensorView {
 public:
  TensorView(void* data, std::vector<int64_t> shape, ONNXTensorElementDataType type)
      : shape_(std::move(shape)), tensor_{data, nullptr, nullptr, static_cast<int32_t>(shape_.size()), dtype(type)} {}

  const vd_tensor* get() {
    tensor_.shape = shape_.data();
    return &tensor_;
  }

 private:
  static int32_t dtype(ONNXTensorElementDataType type);

  std::vector<int64_t> shape_;
  vd_tensor tensor_;
};

// A dimension as shape inference knows it: a size, or the name of a symbol, or neither (size -1 and no name).
struct Dim {
  int64_t size = -1;
  std::string name;
};

Dim product(const Dim& a, const Dim& b);
std::vector<Dim> input_dims(OrtShapeInferContext* context, size_t index);
// The element type of an input, which is what an op registered for several types has to go by: ONNX Runtime asks the
// first of those registered under a name for the shapes of all.
ONNXTensorElementDataType input_type(OrtShapeInferContext* context, size_t index);
// Does nothing when a dimension is neither sized nor named: a made-up name would say that two such are equal. Used in
// place of Ort::ShapeInferContext, which gives symbols a size that ONNX Runtime 1.31 refuses.
void set_output_dims(OrtShapeInferContext* context, size_t index, const std::vector<Dim>& dims,
                     ONNXTensorElementDataType type);

TensorView input(const Ort::KernelContext& context, size_t index);
TensorView output(const Ort::KernelContext& context, size_t index, const std::vector<int64_t>& shape);

}  // namespace ort
}  // namespace visdeploy
