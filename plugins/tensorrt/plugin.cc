#include "tensorrt/plugin.h"

#include "core/error.h"
#include "tensorrt/dtype.h"
#include "tensorrt/log.h"

namespace visdeploy {
namespace trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::PluginFieldType;

static_assert(kFloat32 == static_cast<int32_t>(PluginFieldType::kFLOAT32) &&
                  kFloat64 == static_cast<int32_t>(PluginFieldType::kFLOAT64) &&
                  kInt32 == static_cast<int32_t>(PluginFieldType::kINT32) &&
                  kInt64 == static_cast<int32_t>(PluginFieldType::kINT64),
              "FieldType must have TensorRT's values");

class TensorRtDims final : public DimArithmetic {
 public:
  explicit TensorRtDims(nvinfer1::IExprBuilder& builder) : builder_(builder) {}
  Dim constant(int64_t value) override { return checked(builder_.constant(value)); }
  Dim add(Dim a, Dim b) override { return operation(DimensionOperation::kSUM, a, b); }
  Dim subtract(Dim a, Dim b) override { return operation(DimensionOperation::kSUB, a, b); }
  Dim multiply(Dim a, Dim b) override { return operation(DimensionOperation::kPROD, a, b); }
  Dim divide(Dim a, Dim b) override { return operation(DimensionOperation::kFLOOR_DIV, a, b); }

  static const nvinfer1::IDimensionExpr* expression(Dim dim) {
    return static_cast<const nvinfer1::IDimensionExpr*>(dim.expression);
  }

 private:
  static Dim checked(const nvinfer1::IDimensionExpr* expression) {
    if (expression == nullptr) fail("TensorRT", "dimension of an output", "an expression it refuses", "a dimension");
    return {expression};
  }
  Dim operation(DimensionOperation op, Dim a, Dim b) {
    return checked(builder_.operation(op, *expression(a), *expression(b)));
  }

  nvinfer1::IExprBuilder& builder_;
};

// What supportsFormatCombination() let the builder choose must be what arrives.
void check_types(const OpType& type, const nvinfer1::PluginTensorDesc* inputs, size_t input_count,
                 const nvinfer1::PluginTensorDesc* outputs) {
  std::vector<int32_t> dtypes;
  const auto add = [&](const nvinfer1::PluginTensorDesc& desc) {
    if (desc.format != nvinfer1::TensorFormat::kLINEAR) {
      fail(type.name, "format of tensor " + std::to_string(dtypes.size()),
           std::to_string(static_cast<int32_t>(desc.format)), "linear");
    }
    dtypes.push_back(from_tensorrt(desc.type));
  };
  for (size_t i = 0; i < input_count; ++i) add(inputs[i]);
  for (size_t i = 0; i < type.outputs.size(); ++i) add(outputs[i]);
  check_dtypes(type, input_count, dtypes);
}

// A tensor of a call, and the address that it must not outlive: the dimensions in desc.
vd_tensor tensor_view(const nvinfer1::PluginTensorDesc& desc, const void* data) {
  return {const_cast<void*>(data), desc.dims.d, nullptr, desc.dims.nbDims, from_tensorrt(desc.type)};
}

}  // namespace

Plugin::Plugin(const OpType& type, const Attributes& attributes)
    : type_(type), attributes_(attributes), op_(type.create(attributes)), serialized_(type.attributes, attributes) {
  for (const Field& field : serialized_.fields()) {
    fields_.emplace_back(field.name, field.data, static_cast<PluginFieldType>(field.type), field.length);
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

Plugin::Plugin(const Plugin& other) : Plugin(other.type_, other.attributes_) { inputs_ = other.inputs_; }

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
  return logged<nvinfer1::IPluginV3*>(nullptr, [&] { return new Plugin(*this); });
}

int32_t Plugin::getOutputDataTypes(DataType* outputs, int32_t output_count, const DataType* inputs,
                                   int32_t input_count) const noexcept {
  return logged(1, [&] {
    check_counts(type_, input_count, output_count);
    std::vector<int32_t> given;
    for (int32_t i = 0; i < input_count; ++i) given.push_back(from_tensorrt(inputs[i]));
    // Here, where a refusal can say why: from supportsFormatCombination() TensorRT learns no more than that.
    check_dtypes(type_, given.size(), given);
    for (const int32_t dtype : output_dtypes(type_, given)) *outputs++ = to_tensorrt(dtype);
    return 0;
  });
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*,
                                int32_t, nvinfer1::DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
  return logged(1, [&] {
    check_counts(type_, input_count, output_count);
    std::vector<Dims> shapes;
    for (int32_t i = 0; i < input_count; ++i) {
      Dims& shape = shapes.emplace_back();
      for (int32_t axis = 0; axis < inputs[i].nbDims; ++axis) shape.push_back({inputs[i].d[axis]});
    }
    TensorRtDims arithmetic(builder);
    for (const Dims& shape : infer_shapes(type_, *op_, shapes, arithmetic)) {
      outputs->nbDims = static_cast<int32_t>(shape.size());
      for (size_t axis = 0; axis < shape.size(); ++axis) outputs->d[axis] = TensorRtDims::expression(shape[axis]);
      ++outputs;
    }
    return 0;
  });
}

bool Plugin::supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       int32_t input_count, int32_t output_count) noexcept {
  return logged(false, [&] {
    check_counts(type_, input_count, output_count);
    // Only the descriptions up to this position are filled in.
    std::vector<int32_t> dtypes;
    for (int32_t i = 0; i <= position; ++i) dtypes.push_back(from_tensorrt(tensors[i].desc.type));
    return tensors[position].desc.format == nvinfer1::TensorFormat::kLINEAR &&
           accepts_dtype(type_, static_cast<size_t>(input_count), static_cast<size_t>(position), dtypes);
  });
}

int32_t Plugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                                const nvinfer1::DynamicPluginTensorDesc*, int32_t output_count) noexcept {
  return logged(1, [&] {
    check_counts(type_, input_count, output_count);
    for (int32_t i = 0; i < input_count; ++i) {
      check_rank(type_, type_.inputs[static_cast<size_t>(i)], inputs[i].desc.dims.nbDims);
    }
    inputs_ = static_cast<size_t>(input_count);
    return 0;
  });
}

int32_t Plugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                              const nvinfer1::PluginTensorDesc*, int32_t output_count) noexcept {
  return logged(1, [&] {
    check_counts(type_, input_count, output_count);
    for (int32_t i = 0; i < input_count; ++i) {
      check_rank(type_, type_.inputs[static_cast<size_t>(i)], inputs[i].dims.nbDims);
    }
    inputs_ = static_cast<size_t>(input_count);
    return 0;
  });
}

int32_t Plugin::enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                        const void* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
  return logged(1, [&] {
    if (inputs_ == 0) fail(type_.name, "enqueue", "no shapes yet", "a call of onShapeChange first");
    check_types(type_, input_descs, inputs_, output_descs);
    std::vector<vd_tensor> tensors;
    tensors.reserve(inputs_ + type_.outputs.size());  // their addresses are kept
    Call call = {{}, {}, stream};
    for (size_t i = 0; i < inputs_; ++i) {
      call.inputs.push_back(&tensors.emplace_back(tensor_view(input_descs[i], inputs[i])));
    }
    call.inputs.resize(type_.inputs.size());
    for (size_t i = 0; i < type_.outputs.size(); ++i) {
      call.outputs.push_back(&tensors.emplace_back(tensor_view(output_descs[i], outputs[i])));
    }
    op_->run(call);
    return 0;
  });
}

nvinfer1::IPluginV3* Plugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

const nvinfer1::PluginFieldCollection* Plugin::getFieldsToSerialize() noexcept { return &collection_; }

}  // namespace trt
}  // namespace visdeploy
