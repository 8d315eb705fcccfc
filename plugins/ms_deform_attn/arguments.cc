#include "ms_deform_attn/arguments.h"

#include <limits>
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace visdeploy {
namespace {

constexpr int64_t kInt32 = std::numeric_limits<int32_t>::max();

// Sampling points may be more precise than values: half-precision coordinates miss the pixel on large maps.
int32_t points_dtype(const TensorCheck& points, int32_t dtype) {
  if (dtype == VD_FLOAT16 || dtype == VD_BFLOAT16) {
    points.has_dtype({dtype, VD_FLOAT32});
  } else {
    points.has_dtype({dtype});
  }
  return points.dtype();
}

const void* tensor_data(const char* op, const char* name, const vd_tensor* tensor, const Shape& shape, int32_t dtype) {
  const TensorCheck check(op, name, tensor, static_cast<int>(shape.size()));
  return check.has_dtype({dtype}).has_shape(shape).is_contiguous().data();
}

void check_index_tensors(MsDeformAttnCall& call, const MsDeformAttnInputs& inputs) {
  const TensorCheck shapes(call.name, "spatial_shapes", inputs.spatial_shapes, 2);
  shapes.has_dtype({VD_INT64, VD_INT32}).has_shape({shapes.dim(0), 2}).is_contiguous();
  call.op.levels = shapes.dim(0);
  call.op.spatial_shapes = shapes.data();
  call.op.level_start_index =
      tensor_data(call.name, "level_start_index", inputs.level_start_index, {call.op.levels}, shapes.dtype());
  call.op.wide_index = shapes.dtype() == VD_INT64;
}

void check_references(MsDeformAttnCall& call, const vd_tensor* references) {
  const TensorCheck points(call.name, "reference_points", references, 4);
  const int32_t dtype = call.points_dtype == VD_FLOAT64 ? VD_FLOAT64 : VD_FLOAT32;
  points.has_dtype({call.points_dtype, dtype});
  const int64_t size = points.dim(3) == 4 ? 4 : 2;
  points.has_shape({call.op.batch, call.op.queries, call.op.levels, size}).is_contiguous();
  call.op.references = points.data();
  call.op.reference_size = size;
  call.op.float_references = points.dtype() == VD_FLOAT32;
}

}  // namespace

MsDeformAttnCall check_ms_deform_attn(const MsDeformAttnInputs& inputs) {
  MsDeformAttnCall call;
  call.name = inputs.fused ? "ms_deform_attn_fused" : "ms_deform_attn";
  MsDeformAttn& op = call.op;
  const TensorCheck values(call.name, "value", inputs.value, 4);
  values.has_dtype({VD_FLOAT32, VD_FLOAT64, VD_FLOAT16, VD_BFLOAT16}).is_contiguous();
  call.dtype = values.dtype();
  op.batch = values.dim(0);
  op.tokens = values.dim(1);
  op.heads = values.dim(2);
  op.channels = values.dim(3);
  op.value = values.data();
  check_index_tensors(call, inputs);

  const char* points_name = inputs.fused ? "sampling_offsets" : "sampling_locations";
  const TensorCheck locations(call.name, points_name, inputs.locations, 6);
  call.points_dtype = points_dtype(locations, call.dtype);
  op.queries = locations.dim(1);
  op.points = locations.dim(4);
  op.locations = locations.data();
  const Shape sampled = {op.batch, op.queries, op.heads, op.levels, op.points};
  locations.has_shape({op.batch, op.queries, op.heads, op.levels, op.points, 2}).is_contiguous();
  // Batch and queries may be empty; without heads, channels, levels or points there would be nothing to attend with.
  for (const int64_t size : {op.heads, op.channels, op.levels, op.points}) {
    if (size < 1) {
      fail(call.name, "tensors value " + shape_text(values.shape()) + " and " + points_name,
           shape_text(locations.shape()), "at least one head, channel, level and point");
    }
  }
  if (op.tokens > kInt32) fail(call.name, "tensor value has too many tokens", std::to_string(op.tokens), "below 2^31");
  // Four neighbours of every point of a row are counted in 32 bits.
  if (op.levels > kInt32 / 8 / op.points || op.channels > kInt32) {
    fail(call.name, "tensors value " + shape_text(values.shape()) + " and " + points_name,
         shape_text(locations.shape()), "fewer than 2^28 levels times points, and fewer than 2^31 channels");
  }
  const char* weights_name = inputs.fused ? "attention_logits" : "attention_weights";
  op.weights = tensor_data(call.name, weights_name, inputs.weights, sampled, call.points_dtype);
  if (inputs.fused) check_references(call, inputs.references);
  return call;
}

// The maps must lie in the flattened pyramid one after the other and fill it, so that no location can leave it.
void read_geometry(MsDeformAttnCall& call) {
  const MsDeformAttn& op = call.op;
  const auto read = [&](const void* data, int64_t i) {
    return op.wide_index ? static_cast<const int64_t*>(data)[i] : int64_t(static_cast<const int32_t*>(data)[i]);
  };
  int64_t next = 0;
  for (int64_t l = 0; l < op.levels; ++l) {
    const int64_t height = read(op.spatial_shapes, 2 * l), width = read(op.spatial_shapes, 2 * l + 1);
    const int64_t start = read(op.level_start_index, l);
    const std::string level = "level " + std::to_string(l);
    if (height < 1 || width < 1) {
      fail(call.name, "tensor spatial_shapes, " + level, shape_text({height, width}),
           "a height and a width of at least 1");
    }
    if (start != next) {
      fail(call.name, "tensor level_start_index, " + level, std::to_string(start), std::to_string(next));
    }
    if (height > op.tokens || width > op.tokens || height * width > op.tokens - next) {
      fail(call.name, "tensor spatial_shapes, " + level + " does not fit into value", shape_text({height, width}),
           "at most " + std::to_string(op.tokens - next) + " of value's " + std::to_string(op.tokens) + " tokens");
    }
    call.geometry.push_back({static_cast<int32_t>(height), static_cast<int32_t>(width), static_cast<int32_t>(next)});
    next += height * width;
  }
  if (next != op.tokens) {
    fail(call.name, "tensor value has more tokens than spatial_shapes has positions", std::to_string(op.tokens),
         std::to_string(next));
  }
}

void check_forward(MsDeformAttnCall& call, const vd_tensor* output) {
  MsDeformAttn& op = call.op;
  const Shape shape = {op.batch, op.queries, op.heads * op.channels};
  op.output = const_cast<void*>(tensor_data(call.name, "output", output, shape, call.dtype));
  op.geometry = call.geometry.data();
}

void check_backward(MsDeformAttnCall& call, const vd_tensor* grad_output, const vd_tensor* grad_value,
                    const vd_tensor* grad_sampling_locations, const vd_tensor* grad_attention_weights) {
  MsDeformAttn& op = call.op;
  const Shape sampled = {op.batch, op.queries, op.heads, op.levels, op.points};
  const auto result = [&](const char* name, const vd_tensor* tensor, const Shape& shape) {
    return const_cast<void*>(tensor_data(call.name, name, tensor, shape, call.dtype));
  };
  op.grad_output = result("grad_output", grad_output, {op.batch, op.queries, op.heads * op.channels});
  op.grad_value = result("grad_value", grad_value, {op.batch, op.tokens, op.heads, op.channels});
  op.grad_weights = result("grad_attention_weights", grad_attention_weights, sampled);
  op.grad_locations = result("grad_sampling_locations", grad_sampling_locations,
                             {op.batch, op.queries, op.heads, op.levels, op.points, 2});
  op.geometry = call.geometry.data();
  // The sums are kept in these tensors, and thousands of queries may add to one value.
  TensorCheck(call.name, "value", grad_value, 4).has_dtype({VD_FLOAT32, VD_FLOAT64});
}

int64_t row_cost(const MsDeformAttn& op) { return op.heads * op.levels * op.points * (4 * op.channels + 16); }

}  // namespace visdeploy
