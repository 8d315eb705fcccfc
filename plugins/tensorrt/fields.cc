#include "tensorrt/fields.h"

#include <cstdio>
#include <cstring>
#include <set>

#include "core/error.h"

namespace visdeploy {
namespace trt {
namespace {

// No attribute has more values than this; a length beyond it is damage.
constexpr int32_t kMostValues = 1 << 16;

std::string type_text(int32_t type) {
  switch (type) {
    case kFloat32:
      return "float32";
    case kFloat64:
      return "float64";
    case kInt32:
      return "int32";
    case kInt64:
      return "int64";
    default:
      return "field type " + std::to_string(type);
  }
}

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.15g", value);
  return text;
}

std::string values_text(const std::vector<double>& values) {
  constexpr size_t kShown = 8;
  std::string text = "[";
  for (size_t i = 0; i < values.size() && i < kShown; ++i) text += (i ? ", " : "") + number_text(values[i]);
  return text + (values.size() > kShown ? ", ...]" : "]");
}

template <typename T>
void append(const Field& field, std::vector<double>& values) {
  const auto* bytes = static_cast<const char*>(field.data);
  for (int32_t i = 0; i < field.length; ++i) {
    T value;
    std::memcpy(&value, bytes + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    values.push_back(static_cast<double>(value));
  }
}

void check_length(const std::string& op, const std::string& what, const Field& field, int32_t expected) {
  const std::string length = expected == kAnyLength ? "at least 1 value" : std::to_string(expected) + " value(s)";
  const bool right =
      expected == kAnyLength ? field.length >= 1 && field.length <= kMostValues : field.length == expected;
  if (!right) fail(op, what + " has the wrong length", std::to_string(field.length), length);
  if (field.data == nullptr) fail(op, what + " has no data", "a null pointer", length);
}

std::vector<double> read_values(const std::string& op, const AttributeSpec& spec, const Field& field) {
  const std::string what = "attribute " + spec.name;
  check_length(op, what, field, spec.length);
  std::vector<double> values;
  if (spec.real && field.type == kFloat32) {
    append<float>(field, values);
  } else if (spec.real && field.type == kFloat64) {
    append<double>(field, values);
  } else if (!spec.real && field.type == kInt32) {
    append<int32_t>(field, values);
  } else if (!spec.real && field.type == kInt64) {
    append<int64_t>(field, values);
  } else {
    fail(op, what + " has the wrong type", type_text(field.type), spec.real ? "float32 or float64" : "int32 or int64");
  }
  for (const double value : values) {
    // Written so that NaN fails too.
    if (!(value >= spec.min && value <= spec.max)) {
      fail(op, what + " is out of range", values_text(values),
           "from " + number_text(spec.min) + " to " + number_text(spec.max));
    }
  }
  return values;
}

const AttributeSpec& find_spec(const std::string& op, const std::vector<AttributeSpec>& specs,
                               const std::string& name) {
  std::string known;
  for (const AttributeSpec& spec : specs) {
    if (spec.name == name) return spec;
    known += (known.empty() ? "" : ", ") + spec.name;
  }
  fail(op, "unknown attribute", name, known.empty() ? "no attributes" : known);
}

}  // namespace

std::vector<int64_t> Attributes::integers(const std::string& name) const {
  const std::vector<double>& found = values(name);
  return std::vector<int64_t>(found.begin(), found.end());
}

// What both readers share: the fields that are there, each checked, none twice.
Attributes read_fields(const std::string& op, const std::vector<AttributeSpec>& specs,
                       const std::vector<Field>& fields) {
  Attributes read;
  for (const Field& field : fields) {
    if (field.name == nullptr) fail(op, "an attribute has no name", "a null pointer", "a name");
    const AttributeSpec& spec = find_spec(op, specs, field.name);
    if (!read.values_.emplace(spec.name, read_values(op, spec, field)).second) {
      fail(op, "attribute " + spec.name, "given twice", "given once");
    }
  }
  return read;
}

Attributes read_node(const std::string& op, const std::vector<AttributeSpec>& specs, const std::vector<Field>& fields) {
  Attributes read = read_fields(op, specs, fields);
  for (const AttributeSpec& spec : specs) {
    const bool added = read.values_.emplace(spec.name, spec.standard).second;
    if (added && spec.required) fail(op, "attribute " + spec.name, "absent", "given");
  }
  return read;
}

Attributes read_engine(const std::string& op, const std::vector<AttributeSpec>& specs,
                       const std::vector<Field>& fields) {
  std::vector<Field> attributes;
  const Field* format = nullptr;
  for (const Field& field : fields) {
    const bool is_format = field.name != nullptr && std::strcmp(field.name, kFormatField) == 0;
    if (is_format && format != nullptr)
      fail(op, "serialised plugin, field " + std::string(kFormatField), "given twice", "given once");
    if (is_format) {
      format = &field;
    } else {
      attributes.push_back(field);
    }
  }
  if (format == nullptr) {
    fail(op, "serialised plugin without field " + std::string(kFormatField), std::to_string(fields.size()) + " fields",
         "format " + std::to_string(kFormat));
  }
  const AttributeSpec spec = {kFormatField, 1, {}, -2147483648.0, 2147483647.0};
  const double seen = read_values(op, spec, *format)[0];
  if (seen != kFormat) {
    fail(op, "the engine was built with another version of the plugin library", "format " + number_text(seen),
         "format " + std::to_string(kFormat) + "; build the engine again");
  }
  Attributes read = read_fields(op, specs, attributes);
  for (const AttributeSpec& each : specs) {
    // An attribute without values is not written.
    const bool added = read.values_.emplace(each.name, std::vector<double>()).second;
    if (added && (each.required || !each.standard.empty()))
      fail(op, "serialised attribute " + each.name, "absent", "given");
  }
  return read;
}

SerializedFields::SerializedFields(const std::vector<AttributeSpec>& specs, const Attributes& attributes) {
  fields_.push_back({kFormatField, &format_, kInt32, 1});
  for (const AttributeSpec& spec : specs) {
    const std::vector<double>& values = attributes.values(spec.name);
    if (values.empty()) continue;
    const auto length = static_cast<int32_t>(values.size());
    // The names in the fields are those of the map's keys, which live as long as this object.
    if (spec.real) {
      const auto kept = reals_.emplace(spec.name, std::vector<float>(values.begin(), values.end())).first;
      fields_.push_back({kept->first.c_str(), kept->second.data(), kFloat32, length});
    } else {
      const auto kept = integers_.emplace(spec.name, std::vector<int32_t>(values.begin(), values.end())).first;
      fields_.push_back({kept->first.c_str(), kept->second.data(), kInt32, length});
    }
  }
}

}  // namespace trt
}  // namespace visdeploy
