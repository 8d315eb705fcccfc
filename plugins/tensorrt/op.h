// What a TensorRT plugin must say of its op. One op is one file, <op>/tensorrt_plugin.cc, that fills these in; it sees
// nothing of TensorRT, so that tests and fuzzers can drive it without one. plugin.cc carries it into TensorRT.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "tensorrt/fields.h"
#include "visdeploy/c_api.h"

namespace visdeploy {
namespace trt {

// A dimension while the network is built: a number or an expression of dimensions that are not known yet.
struct Dim {
  const void* expression;  // belongs to the arithmetic that made it
};
using Dims = std::vector<Dim>;

class DimArithmetic {
 public:
  virtual ~DimArithmetic() = default;
  virtual Dim constant(int64_t value) = 0;
  virtual Dim add(Dim a, Dim b) = 0;
  virtual Dim subtract(Dim a, Dim b) = 0;
  virtual Dim multiply(Dim a, Dim b) = 0;
  // Rounds down; b is above 0.
  virtual Dim divide(Dim a, Dim b) = 0;
};

// One input or output.
struct TensorSpec {
  std::string name;
  int32_t rank;
  std::vector<int32_t> dtypes;  // vd_dtype: one of these,
  int32_t like_input = -1;      // or that of this input, which comes before it
};

// The tensors of a call. Absent optional inputs are null, as the checks of <op>/arguments.h take them.
struct Call {
  std::vector<const vd_tensor*> inputs, outputs;  // as many as OpType declares
  void* stream;                                   // cudaStream_t
};

// A node's op with its attributes. Immutable: plugins and their clones share it.
class Op {
 public:
  virtual ~Op() = default;
  // Of every output; inputs that were not given are empty.
  virtual std::vector<Dims> output_shapes(const std::vector<Dims>& inputs, DimArithmetic& arithmetic) const = 0;
  // Queues the work on the stream. All tensors are in device memory. Throws OpError when they do not agree.
  virtual void run(const Call& call) const = 0;
};

struct OpType {
  std::string name;  // that of the ONNX op
  std::vector<AttributeSpec> attributes;
  std::vector<TensorSpec> inputs;  // the optional ones are the last
  size_t required_inputs;
  std::vector<TensorSpec> outputs;
  std::unique_ptr<const Op> (*create)(const Attributes& attributes);
};

// All ops of the library, in the order in which TensorRT lists them; one line per op in ops.cc.
const std::vector<const OpType*>& op_types();

// The floating-point types of TensorRT that every op takes, and those of index tensors.
inline std::vector<int32_t> value_dtypes() { return {VD_FLOAT32, VD_FLOAT16, VD_BFLOAT16}; }
inline std::vector<int32_t> index_dtypes() { return {VD_INT64, VD_INT32}; }

// Throw OpError naming op and tensor.
void check_counts(const OpType& type, int64_t inputs, int64_t outputs);
void check_rank(const OpType& type, const TensorSpec& tensor, int64_t rank);

// output_shapes() after checking number and rank of the inputs.
std::vector<Dims> infer_shapes(const OpType& type, const Op& op, std::vector<Dims> inputs, DimArithmetic& arithmetic);

// Whether the tensor at a position, inputs first, may have the dtype when those before it have the given ones.
bool accepts_dtype(const OpType& type, size_t inputs, size_t position, const std::vector<int32_t>& dtypes);

// Throws OpError naming the first tensor, inputs first, whose dtype accepts_dtype() does not take. Also asked where the
// op runs: an op's own checks are made for every engine, and may take more than the builder was told.
void check_dtypes(const OpType& type, size_t inputs, const std::vector<int32_t>& dtypes);

// dtypes of all outputs, from those of the inputs.
std::vector<int32_t> output_dtypes(const OpType& type, const std::vector<int32_t>& inputs);

}  // namespace trt
}  // namespace visdeploy
