#include "ort/tensor_view.h"

namespace visdeploy::ort {

int32_t TensorView::dtype(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return VD_FLOAT32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return VD_FLOAT64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return VD_FLOAT16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return VD_BFLOAT16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return VD_INT64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return VD_INT32;
    default:
      return VD_OTHER;
  }
}

TensorView input(const Ort::KernelContext& context, size_t index) {
  const Ort::ConstValue value = context.GetInput(index);
  const Ort::TensorTypeAndShapeInfo info = value.GetTensorTypeAndShapeInfo();
  return TensorView(const_cast<void*>(value.GetTensorRawData()), info.GetShape(), info.GetElementType());
}

TensorView output(const Ort::KernelContext& context, size_t index, const std::vector<int64_t>& shape) {
  Ort::UnownedValue value = context.GetOutput(index, shape);
  return TensorView(value.GetTensorMutableRawData(), shape, value.GetTensorTypeAndShapeInfo().GetElementType());
}

}  // namespace visdeploy::ort
