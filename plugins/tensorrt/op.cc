#include "tensorrt/op.h"

#include <algorithm>

#include "core/error.h"

namespace visdeploy {
namespace trt {

void check_counts(const OpType& type, int64_t inputs, int64_t outputs) {
  const auto most = static_cast<int64_t>(type.inputs.size()), least = static_cast<int64_t>(type.required_inputs);
  if (inputs < least || inputs > most) {
    std::string expected = std::to_string(least);
    if (most > least) expected += " to " + std::to_string(most);
    fail(type.name, "number of inputs", std::to_string(inputs), expected);
  }
  if (outputs != static_cast<int64_t>(type.outputs.size())) {
    fail(type.name, "number of outputs", std::to_string(outputs), std::to_string(type.outputs.size()));
  }
}

void check_rank(const OpType& type, const TensorSpec& tensor, int64_t rank) {
  if (rank == tensor.rank) return;
  fail(type.name, "tensor " + tensor.name + " has the wrong number of dimensions", std::to_string(rank),
       std::to_string(tensor.rank));
}

std::vector<Dims> infer_shapes(const OpType& type, const Op& op, std::vector<Dims> inputs, DimArithmetic& arithmetic) {
  check_counts(type, static_cast<int64_t>(inputs.size()), static_cast<int64_t>(type.outputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) check_rank(type, type.inputs[i], static_cast<int64_t>(inputs[i].size()));
  inputs.resize(type.inputs.size());
  return op.output_shapes(inputs, arithmetic);
}

namespace {

const TensorSpec& tensor_at(const OpType& type, size_t inputs, size_t position) {
  return position < inputs ? type.inputs.at(position) : type.outputs.at(position - inputs);
}

}  // namespace

bool accepts_dtype(const OpType& type, size_t inputs, size_t position, const std::vector<int32_t>& dtypes) {
  const TensorSpec& tensor = tensor_at(type, inputs, position);
  const int32_t dtype = dtypes.at(position);
  if (tensor.like_input >= 0 && dtype == dtypes.at(static_cast<size_t>(tensor.like_input))) return true;
  return std::find(tensor.dtypes.begin(), tensor.dtypes.end(), dtype) != tensor.dtypes.end();
}

void check_dtypes(const OpType& type, size_t inputs, const std::vector<int32_t>& dtypes) {
  for (size_t position = 0; position < dtypes.size(); ++position) {
    if (accepts_dtype(type, inputs, position, dtypes)) continue;
    const TensorSpec& tensor = tensor_at(type, inputs, position);
    std::string expected;
    for (const int32_t dtype : tensor.dtypes) expected += (expected.empty() ? "" : " or ") + dtype_text(dtype);
    if (tensor.like_input >= 0) {
      const TensorSpec& like = type.inputs.at(static_cast<size_t>(tensor.like_input));
      expected += (expected.empty() ? "that of " : " or that of ") + like.name;
    }
    fail(type.name, "tensor " + tensor.name + " has the wrong type", dtype_text(dtypes[position]), expected);
  }
}

std::vector<int32_t> output_dtypes(const OpType& type, const std::vector<int32_t>& inputs) {
  std::vector<int32_t> dtypes;
  for (const TensorSpec& output : type.outputs) {
    dtypes.push_back(output.like_input >= 0 ? inputs.at(static_cast<size_t>(output.like_input)) : output.dtypes.at(0));
  }
  return dtypes;
}

}  // namespace trt
}  // namespace visdeploy
