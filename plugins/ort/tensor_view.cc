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
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return VD_BOOL;
    default:
      return VD_OTHER;
  }
}

Dim product(const Dim& a, const Dim& b) {
  Dim result;
  if (a.size >= 0 && b.size >= 0 && __builtin_mul_overflow(a.size, b.size, &result.size)) result.size = -1;
  return result;
}

namespace {

Ort::ConstTensorTypeAndShapeInfo input_info(OrtShapeInferContext* context, size_t index) {
  OrtTensorTypeAndShapeInfo* raw = nullptr;  // stays the context's
  Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputTypeShape(context, index, &raw));
  return Ort::ConstTensorTypeAndShapeInfo(raw);
}

}  // namespace

ONNXTensorElementDataType input_type(OrtShapeInferContext* context, size_t index) {
  return input_info(context, index).GetElementType();
}

std::vector<Dim> input_dims(OrtShapeInferContext* context, size_t index) {
  const Ort::ConstTensorTypeAndShapeInfo info = input_info(context, index);
  const std::vector<int64_t> sizes = info.GetShape();
  std::vector<const char*> names(sizes.size(), nullptr);
  if (!names.empty()) info.GetSymbolicDimensions(names.data(), names.size());
  std::vector<Dim> dims;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const std::string name = names[i] == nullptr ? "" : names[i];
    dims.push_back({name.empty() ? sizes[i] : -1, name});
  }
  return dims;
}

void set_output_dims(OrtShapeInferContext* context, size_t index, const std::vector<Dim>& dims,
                     ONNXTensorElementDataType type) {
  std::vector<int64_t> sizes;
  std::vector<const char*> names;
  for (const Dim& dim : dims) {
    if (dim.size < 0 && dim.name.empty()) return;
    sizes.push_back(dim.size);
    names.push_back(dim.name.c_str());
  }
  const OrtApi& api = Ort::GetApi();
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&raw));
  const Ort::TensorTypeAndShapeInfo info(raw);
  Ort::ThrowOnError(api.SetTensorElementType(raw, type));
  Ort::ThrowOnError(api.SetDimensions(raw, sizes.data(), sizes.size()));
  Ort::ThrowOnError(api.SetSymbolicDimensions(raw, names.data(), names.size()));
  Ort::ThrowOnError(api.ShapeInferContext_SetOutputTypeShape(context, index, raw));
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
