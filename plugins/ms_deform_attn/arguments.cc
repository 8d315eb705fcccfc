#include "ms_deform_attn/arguments.h"

#include <limits>
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace visdeploy {
namespace {

constexpr const char* kOp = "ms_deform_attn";

// The maps must lie in the flattened pyramid one after the other and fill it, so that no location can leave it.
std::vector<Level> read_geometry(const TensorCheck& shapes, const TensorCheck& starts, int64_t tokens) {
  std::vector<Level> geometry;
  const auto* size = static_cast<const int64_t*>(shapes.data());
  const auto* start = static_cast<const int64_t*>(starts.data());
  int64_t next = 0;
  for (int64_t l = 0; l < shapes.dim(0); ++l) {
    const int64_t height = size[2 * l], width = size[2 * l + 1];
    const std::string level = "level " + std::to_string(l);
    if (height < 1 || width < 1) {
      fail(kOp, "tensor spatial_shapes, " + level, shape_text({height, width}), "a height and a width of at least 1");
    }
    if (start[l] != next) {
      fail(kOp, "tensor level_start_index, " + level, std::to_string(start[l]), std::to_string(next));
    }
    if (height > tokens || width > tokens || height * width > tokens - next) {
      fail(kOp, "tensor spatial_shapes, " + level + " does not fit into value", shape_text({height, width}),
           "at most " + std::to_string(tokens - next) + " of value's " + std::to_string(tokens) + " tokens");
    }
    geometry.push_back({static_cast<int32_t>(height), static_cast<int32_t>(width), static_cast<int32_t>(next)});
    next += height * width;
  }
  if (next != tokens) {
    fail(kOp, "tensor value has more tokens than spatial_shapes has positions", std::to_string(tokens),
         std::to_string(next));
  }
  return geometry;
}

const void* input(const char* name, const vd_tensor* tensor, const Shape& shape, int32_t dtype) {
  const TensorCheck check(kOp, name, tensor, static_cast<int>(shape.size()));
  return check.has_dtype({dtype}).has_shape(shape).is_contiguous().data();
}

}  // namespace

MsDeformAttnCall check_ms_deform_attn(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                      const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                      const vd_tensor* attention_weights) {
  const TensorCheck values(kOp, "value", value, 4);
  values.has_dtype({VD_FLOAT32, VD_FLOAT64, VD_FLOAT16, VD_BFLOAT16}).is_contiguous();
  const TensorCheck shapes(kOp, "spatial_shapes", spatial_shapes, 2);
  shapes.has_dtype({VD_INT64}).has_shape({shapes.dim(0), 2}).is_contiguous();
  const TensorCheck starts(kOp, "level_start_index", level_start_index, 1);
  starts.has_dtype({VD_INT64}).has_shape({shapes.dim(0)}).is_contiguous();
  const TensorCheck locations(kOp, "sampling_locations", sampling_locations, 6);
  const int64_t queries = locations.dim(1), points = locations.dim(4);
  const Shape sampled = {values.dim(0), queries, values.dim(2), shapes.dim(0), points};
  locations.has_dtype({values.dtype()});
  locations.has_shape({sampled[0], sampled[1], sampled[2], sampled[3], sampled[4], 2}).is_contiguous();

  // Batch and queries may be empty; without heads, channels, levels or points there would be nothing to attend with.
  for (const int64_t size : {values.dim(2), values.dim(3), shapes.dim(0), points}) {
    if (size < 1) {
      fail(kOp, "tensors value " + shape_text(values.shape()) + " and sampling_locations", shape_text(locations.shape()),
           "at least one head, channel, level and point");
    }
  }
  if (values.dim(1) > std::numeric_limits<int32_t>::max()) {
    fail(kOp, "tensor value has too many tokens", std::to_string(values.dim(1)), "fewer than 2^31");
  }
  MsDeformAttnCall call;
  call.geometry = read_geometry(shapes, starts, values.dim(1));
  call.dtype = values.dtype();
  call.op.batch = values.dim(0);
  call.op.tokens = values.dim(1);
  call.op.heads = values.dim(2);
  call.op.channels = values.dim(3);
  call.op.levels = shapes.dim(0);
  call.op.queries = queries;
  call.op.points = points;
  call.op.value = values.data();
  call.op.locations = locations.data();
  call.op.weights = input("attention_weights", attention_weights, sampled, call.dtype);
  return call;
}

void check_forward(MsDeformAttnCall& call, const vd_tensor* output) {
  const MsDeformAttn& op = call.op;
  const Shape shape = {op.batch, op.queries, op.heads * op.channels};
  call.op.output = const_cast<void*>(input("output", output, shape, call.dtype));
  call.op.geometry = call.geometry.data();
}

void check_backward(MsDeformAttnCall& call, const vd_tensor* grad_output, const vd_tensor* grad_value,
                    const vd_tensor* grad_sampling_locations, const vd_tensor* grad_attention_weights) {
  MsDeformAttn& op = call.op;
  const Shape sampled = {op.batch, op.queries, op.heads, op.levels, op.points};
  op.grad_output = input("grad_output", grad_output, {op.batch, op.queries, op.heads * op.channels}, call.dtype);
  op.grad_value = const_cast<void*>(
      input("grad_value", grad_value, {op.batch, op.tokens, op.heads, op.channels}, call.dtype));
  op.grad_weights = const_cast<void*>(input("grad_attention_weights", grad_attention_weights, sampled, call.dtype));
  op.grad_locations = const_cast<void*>(
      input("grad_sampling_locations", grad_sampling_locations,
            {op.batch, op.queries, op.heads, op.levels, op.points, 2}, call.dtype));
  op.geometry = call.geometry.data();
  const TensorCheck values(kOp, "value", grad_value, 4);
  values.has_dtype({VD_FLOAT32, VD_FLOAT64});
}

int64_t row_cost(const MsDeformAttn& op) { return op.heads * op.levels * op.points * (4 * op.channels + 16); }

}  // namespace visdeploy
