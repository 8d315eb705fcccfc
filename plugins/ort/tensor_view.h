// ONNX Runtime's tensors and errors as the library's own.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

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

TensorView input(const Ort::KernelContext& context, size_t index);
TensorView output(const Ort::KernelContext& context, size_t index, const std::vector<int64_t>& shape);

}  // namespace ort
}  // namespace visdeploy
