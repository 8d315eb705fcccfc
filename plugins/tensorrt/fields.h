// The attributes of a TensorRT plugin: declared once per op, then read from the fields that an ONNX node or a
// serialised engine brings, and written back. Knows nothing of TensorRT, so that tests and fuzzers can drive it without
// one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace visdeploy {
namespace trt {

// Values of nvinfer1::PluginFieldType; plugin.cc asserts that they agree.
enum FieldType : int32_t { kFloat32 = 1, kFloat64 = 2, kInt32 = 5, kInt64 = 10 };

// nvinfer1::PluginField: length values of the type at data, which need not be aligned.
struct Field {
  const char* name;
  const void* data;
  int32_t type;
  int32_t length;
};

constexpr int32_t kAnyLength = -1;

// One attribute: whole numbers or, where real is set, floating-point ones, each from min to max.
struct AttributeSpec {
  std::string name;
  int32_t length = 1;            // number of values, or kAnyLength for one or more
  std::vector<double> standard;  // taken when the attribute is absent
  double min = 0, max = 2147483647;
  bool real = false;
  bool required = false;  // absent is an error; a standard of no values with required unset says "none"
};

// The checked values of one node. A value is kept as double, which holds every int32_t and float exactly.
class Attributes {
 public:
  const std::vector<double>& values(const std::string& name) const { return values_.at(name); }
  int64_t integer(const std::string& name) const { return static_cast<int64_t>(values(name).at(0)); }
  float real(const std::string& name) const { return static_cast<float>(values(name).at(0)); }
  std::vector<int64_t> integers(const std::string& name) const;

 private:
  friend Attributes read_node(const std::string&, const std::vector<AttributeSpec>&, const std::vector<Field>&);
  friend Attributes read_engine(const std::string&, const std::vector<AttributeSpec>&, const std::vector<Field>&);
  friend Attributes read_fields(const std::string&, const std::vector<AttributeSpec>&, const std::vector<Field>&);
  std::map<std::string, std::vector<double>> values_;
};

// From the attributes of a network's node. Throws OpError naming the op and the field that is unknown, repeated, of
// the wrong type or length, or out of range.
Attributes read_node(const std::string& op, const std::vector<AttributeSpec>& specs, const std::vector<Field>& fields);

// From the fields that SerializedFields wrote. Every attribute must be there, and the format must be this one.
Attributes read_engine(const std::string& op, const std::vector<AttributeSpec>& specs,
                       const std::vector<Field>& fields);

// Changes whenever the fields of an engine change in meaning; engines of another format are refused.
constexpr int32_t kFormat = 1;
constexpr const char* kFormatField = "visdeploy_format";

// What an engine file keeps of a plugin: its attributes and the format. Owns what fields() points to.
class SerializedFields {
 public:
  SerializedFields(const std::vector<AttributeSpec>& specs, const Attributes& attributes);
  SerializedFields(const SerializedFields&) = delete;
  SerializedFields& operator=(const SerializedFields&) = delete;

  const std::vector<Field>& fields() const { return fields_; }

 private:
  int32_t format_ = kFormat;
  std::map<std::string, std::vector<int32_t>> integers_;
  std::map<std::string, std::vector<float>> reals_;
  std::vector<Field> fields_;
};

}  // namespace trt
}  // namespace visdeploy
