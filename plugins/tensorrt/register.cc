// What TensorRT finds in the library: a creator per op, and the way to its logger.

#include "core/error.h"
#include "tensorrt/log.h"
#include "tensorrt/plugin.h"

namespace visdeploy {
namespace trt {
namespace {

class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(const OpType& type) : type_(type) {
    for (const AttributeSpec& spec : type.attributes) {
      // Only names matter here: the ONNX parser hands over the attributes that are named.
      const auto kind = spec.real ? nvinfer1::PluginFieldType::kFLOAT32 : nvinfer1::PluginFieldType::kINT32;
      fields_.emplace_back(spec.name.c_str(), nullptr, kind, spec.length == kAnyLength ? 0 : spec.length);
    }
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  }

  const char* getPluginName() const noexcept override { return type_.name.c_str(); }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* collection,
                                    nvinfer1::TensorRTPhase phase) noexcept override {
    return logged<nvinfer1::IPluginV3*>(nullptr, [&] {
      const std::vector<Field> fields = fields_of(collection);
      const bool build = phase == nvinfer1::TensorRTPhase::kBUILD;
      return new Plugin(type_, (build ? read_node : read_engine)(type_.name, type_.attributes, fields));
    });
  }

 private:
  std::vector<Field> fields_of(const nvinfer1::PluginFieldCollection* collection) const {
    std::vector<Field> fields;
    if (collection == nullptr) return fields;
    if (collection->nbFields < 0 || (collection->nbFields > 0 && collection->fields == nullptr)) {
      fail(type_.name, "plugin fields", std::to_string(collection->nbFields) + " without an address", "fields");
    }
    for (int32_t i = 0; i < collection->nbFields; ++i) {
      const nvinfer1::PluginField& field = collection->fields[i];
      fields.push_back({field.name, field.data, static_cast<int32_t>(field.type), field.length});
    }
    return fields;
  }

  const OpType& type_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

struct Creators {
  std::vector<std::unique_ptr<Creator>> owned;
  std::vector<nvinfer1::IPluginCreatorInterface*> list;

  Creators() {
    for (const OpType* type : op_types()) list.push_back(owned.emplace_back(std::make_unique<Creator>(*type)).get());
  }
};

}  // namespace
}  // namespace trt
}  // namespace visdeploy

extern "C" {

VD_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  visdeploy::trt::use_logger_finder(finder, __builtin_return_address(0));
}

VD_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  count = 0;
  return visdeploy::trt::logged<nvinfer1::IPluginCreatorInterface* const*>(nullptr, [&] {
    static visdeploy::trt::Creators creators;
    count = static_cast<int32_t>(creators.list.size());
    return creators.list.data();
  });
}

}  // extern "C"
