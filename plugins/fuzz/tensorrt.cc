// What TensorRT plugins read: the attributes of a node, the fields of an engine file, and the shapes of their tensors.
#include <cstring>
#include <memory>
#include <string>

#include "core/error.h"
#include "fuzz/target.h"
#include "tensorrt/op.h"

namespace visdeploy::fuzz {
namespace {

// Dimensions that may be anything; the arithmetic of TensorRT's own expressions, with wrapping overflow.
class Arithmetic final : public trt::DimArithmetic {
 public:
  trt::Dim constant(int64_t value) override {
    values_.push_back(std::make_unique<int64_t>(value));
    return {values_.back().get()};
  }
  trt::Dim add(trt::Dim a, trt::Dim b) override { return constant(wrapped(value(a) + value(b))); }
  trt::Dim subtract(trt::Dim a, trt::Dim b) override { return constant(wrapped(value(a) - value(b))); }
  trt::Dim multiply(trt::Dim a, trt::Dim b) override { return constant(wrapped(value(a) * value(b))); }
  trt::Dim divide(trt::Dim a, trt::Dim b) override {
    return constant(value(b) == 0 ? 0 : wrapped(value(a) / value(b)));
  }

 private:
  static __int128 value(trt::Dim dim) { return *static_cast<const int64_t*>(dim.expression); }
  static int64_t wrapped(__int128 value) { return static_cast<int64_t>(value); }

  std::vector<std::unique_ptr<int64_t>> values_;
};

// Fields with their memory, which ends where the last value does.
struct Fields {
  std::vector<std::unique_ptr<char[]>> memory;
  std::vector<std::string> names;
  std::vector<trt::Field> fields;
};

// Every kind of attribute, whatever the ops have.
const std::vector<trt::AttributeSpec>& every_kind() {
  static const std::vector<trt::AttributeSpec> specs = {
      {"one", 1, {1}},
      {"pair", 2, {1, 1}, 0, 7},
      {"list", trt::kAnyLength, {}},
      {"real", 1, {56}, 0, 1e6, true},
      {"reals", trt::kAnyLength, {}, -1, 1, true, true},
      {"needed", 4, {}, -100, 2147483647, false, true},
  };
  return specs;
}

size_t size_of(int32_t type) { return type == trt::kFloat64 || type == trt::kInt64 ? 8 : 4; }

std::string any_name(const std::vector<trt::AttributeSpec>& specs, Bytes& bytes) {
  const auto count = static_cast<int64_t>(specs.size());
  const int64_t which = bytes.below(count + 3);
  if (which < count) return specs[static_cast<size_t>(which)].name;
  return which == count ? trt::kFormatField : which == count + 1 ? "plugin_version" : "unknown";
}

void add_field(Fields& made, const std::string& name, int32_t length, Bytes& bytes) {
  constexpr int32_t kTypes[] = {trt::kInt32, trt::kInt64, trt::kFloat32, trt::kFloat64, 0, 3, 99, -1};
  const int32_t type = kTypes[bytes.below(bytes.seldom() ? 8 : 4)];
  const size_t size = static_cast<size_t>(length) * size_of(type);
  made.memory.emplace_back(new char[size]);
  for (int32_t i = 0; i < length; ++i) {
    const int64_t whole = bytes.seldom() ? bytes.odd_integer() : bytes.below(4);
    char* to = made.memory.back().get() + static_cast<size_t>(i) * size_of(type);
    const float single = static_cast<float>(bytes.seldom() ? bytes.number() : static_cast<double>(whole % 1000));
    const double wide = single;
    const int32_t narrow = static_cast<int32_t>(whole);
    const void* from = type == trt::kFloat32   ? static_cast<const void*>(&single)
                       : type == trt::kFloat64 ? static_cast<const void*>(&wide)
                       : type == trt::kInt64   ? static_cast<const void*>(&whole)
                                               : static_cast<const void*>(&narrow);
    std::memcpy(to, from, size_of(type));
  }
  made.names.push_back(name);
  made.fields.push_back({nullptr, made.memory.back().get(), type, length});
  trt::Field& field = made.fields.back();
  if (bytes.seldom()) field.data = nullptr;
  // Too short or not there at all; never longer than its memory, which the engine vouches for.
  if (bytes.seldom()) field.length = static_cast<int32_t>(bytes.between(-2, 0));
}

void make_fields(Fields& made, const std::vector<trt::AttributeSpec>& specs, Bytes& bytes) {
  for (const trt::AttributeSpec& spec : specs) {
    if (bytes.seldom()) continue;
    add_field(made, spec.name, spec.length == trt::kAnyLength ? static_cast<int32_t>(bytes.below(9)) : spec.length,
              bytes);
  }
  for (int64_t more = bytes.below(3); more > 0; --more) {
    add_field(made, any_name(specs, bytes), static_cast<int32_t>(bytes.below(6)), bytes);
  }
  // Only now, because strings move while their vector grows.
  for (size_t i = 0; i < made.fields.size(); ++i) made.fields[i].name = made.names[i].c_str();
  if (!made.fields.empty() && bytes.seldom()) made.fields.back().name = nullptr;
}

void infer(const trt::OpType& type, const trt::Op& op, Bytes& bytes) {
  Arithmetic arithmetic;
  std::vector<trt::Dims> inputs;
  const auto count = static_cast<int64_t>(type.inputs.size()) + (bytes.seldom() ? bytes.between(-2, 1) : 0);
  for (int64_t i = 0; i < count; ++i) {
    const auto known = static_cast<size_t>(i) < type.inputs.size();
    int64_t rank = known ? type.inputs[static_cast<size_t>(i)].rank : 3;
    if (bytes.seldom()) rank += bytes.between(-1, 1);
    trt::Dims dims;
    for (int64_t axis = 0; axis < rank; ++axis) {
      dims.push_back(arithmetic.constant(bytes.seldom() ? bytes.odd_integer() : bytes.below(40)));
    }
    inputs.push_back(dims);
  }
  trt::infer_shapes(type, op, inputs, arithmetic);
}

trt::Attributes read(const std::string& op, const std::vector<trt::AttributeSpec>& specs, Bytes& bytes) {
  Fields made;
  make_fields(made, specs, bytes);
  if (bytes.below(2)) return trt::read_node(op, specs, made.fields);
  // A right format, or else nothing but its absence would be seen.
  const int32_t format = trt::kFormat + (bytes.seldom() ? 1 : 0);
  made.fields.push_back({trt::kFormatField, &format, trt::kInt32, 1});
  return trt::read_engine(op, specs, made.fields);
}

void run(Bytes& bytes) {
  const auto& types = trt::op_types();
  const auto which = static_cast<size_t>(bytes.below(static_cast<int64_t>(types.size()) + 2));
  const trt::OpType* type = which < types.size() ? types[which] : nullptr;
  const std::string name = type == nullptr ? "AnyOp" : type->name;
  const std::vector<trt::AttributeSpec>& specs = type == nullptr ? every_kind() : type->attributes;
  try {
    const trt::Attributes attributes = read(name, specs, bytes);
    // What is written must be readable, and say the same.
    const trt::SerializedFields written(specs, attributes);
    const trt::Attributes again = trt::read_engine(name, specs, written.fields());
    for (const trt::AttributeSpec& spec : specs) {
      if (again.values(spec.name) != attributes.values(spec.name)) __builtin_trap();
    }
    if (type != nullptr) infer(*type, *type->create(attributes), bytes);
  } catch (const OpError&) {
    // Refused, with a message: what a wrong field is for.
  }
}

const Subject subject(run);

}  // namespace
}  // namespace visdeploy::fuzz
