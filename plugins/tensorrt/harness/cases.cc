// The calls that the harness makes. An op joins with a function that adds its own, and one line in all_cases().

#include "tensorrt/harness/case.h"

namespace visdeploy {
namespace harness {
namespace {

using Inputs = std::vector<const vd_tensor*>;

struct Pyramid {
  std::vector<double> shapes, starts;
  int64_t tokens = 0;

  explicit Pyramid(const std::vector<std::vector<int64_t>>& levels) {
    for (const auto& level : levels) {
      shapes.insert(shapes.end(), level.begin(), level.end());
      starts.push_back(static_cast<double>(tokens));
      tokens += level[0] * level[1];
    }
  }
};

void add_ms_deform_attn(std::vector<Case>& cases) {
  struct Size {
    const char* what;
    int64_t batch, queries, heads, channels, points;
    int32_t index_dtype;
  };
  const Reference reference = [](const Inputs& in, const vd_tensor* out) {
    return vd_ms_deform_attn_forward(in[0], in[1], in[2], in[3], in[4], out, 1);
  };
  const Pyramid pyramid({{12, 20}, {6, 10}, {3, 5}, {1, 1}});
  const auto levels = static_cast<int64_t>(pyramid.starts.size());
  for (const Size& size :
       {Size{"wide", 2, 37, 8, 32, 4, VD_INT64}, Size{"odd channels", 1, 5, 3, 7, 2, VD_INT64},
        Size{"int32 shapes", 1, 9, 2, 16, 1, VD_INT32}, Size{"float32 points", 1, 40, 4, 16, 4, VD_INT64},
        Size{"no queries", 1, 0, 2, 8, 2, VD_INT64}, Size{"no batch", 0, 4, 2, 8, 2, VD_INT64}}) {
    const std::vector<int64_t> samples = {size.batch, size.queries, size.heads, levels, size.points};
    std::vector<int64_t> locations = samples;
    locations.push_back(2);
    cases.push_back(
        {"MSDeformAttn",
         size.what,
         {},
         {random_tensor({size.batch, pyramid.tokens, size.heads, size.channels}, -1, 1, 1),
          integers({levels, 2}, pyramid.shapes, size.index_dtype), integers({levels}, pyramid.starts, size.index_dtype),
          random_tensor(locations, -0.3, 1.3, 2), random_tensor(samples, 0, 1, 3)},
         {size.batch, size.queries, size.heads * size.channels},
         reference,
         {}});
  }
}

void add_deform_conv(std::vector<Case>& cases) {
  struct Size {
    const char* what;
    int64_t batch, channels, outputs, groups, offset_groups;
    vd_deform_conv_params params;
    bool mask;
  };
  const int64_t height = 9, width = 13;
  for (const Size& size : {Size{"v1", 2, 8, 6, 1, 1, {{1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 1}, false},
                           Size{"v2", 1, 16, 8, 1, 1, {{1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 1}, true},
                           Size{"groups", 2, 12, 6, 3, 2, {{2, 1}, {2, 0, 1, 1}, {1, 2}, 3, 2}, true},
                           Size{"no batch", 0, 4, 4, 1, 1, {{1, 1}, {1, 1, 1, 1}, {1, 1}, 1, 1}, true}}) {
    const vd_deform_conv_params params = size.params;
    const auto extent = [&](int axis, int64_t input) {
      const int64_t padded = input + params.padding[axis] + params.padding[axis + 2];
      return (padded - 2 * params.dilation[axis] - 1) / params.stride[axis] + 1;
    };
    const int64_t rows = extent(0, height), columns = extent(1, width), taps = 9 * size.offset_groups;
    Case one = {
        "DeformConv",
        size.what,
        {{"strides", {1.0 * params.stride[0], 1.0 * params.stride[1]}},
         {"pads", std::vector<double>(params.padding, params.padding + 4)},
         {"dilations", {1.0 * params.dilation[0], 1.0 * params.dilation[1]}},
         {"group", {1.0 * params.groups}},
         {"offset_group", {1.0 * params.offset_groups}}},
        {random_tensor({size.batch, size.channels, height, width}, -1, 1, 1),
         random_tensor({size.outputs, size.channels / size.groups, 3, 3}, -0.3, 0.3, 2),
         random_tensor({size.batch, 2 * taps, rows, columns}, -2, 2, 3), random_tensor({size.outputs}, -1, 1, 4)},
        {size.batch, size.outputs, rows, columns},
        [params](const Inputs& in, const vd_tensor* out) {
          return vd_deform_conv_forward(in[0], in[2], in[1], in[4], in[3], out, &params, 1);
        },
        {}};
    if (size.mask) one.inputs.push_back(random_tensor({size.batch, taps, rows, columns}, 0, 1, 5));
    cases.push_back(one);
  }
}

void add_ms_deform_attn_fused(std::vector<Case>& cases) {
  struct Size {
    const char* what;
    int64_t batch, queries, heads, channels, points, reference_width;
    std::vector<size_t> kept;
  };
  const Pyramid pyramid({{12, 20}, {6, 10}, {3, 5}});
  const auto levels = static_cast<int64_t>(pyramid.starts.size());
  for (const Size& size :
       {Size{"points", 2, 19, 8, 16, 4, 2, {3}}, Size{"boxes", 1, 11, 4, 8, 2, 4, {3}},
        Size{"float32 points", 1, 13, 2, 5, 3, 2, {3, 4, 5}}, Size{"no queries", 1, 0, 2, 8, 2, 2, {3}}}) {
    const std::vector<int64_t> samples = {size.batch, size.queries, size.heads, levels, size.points};
    std::vector<int64_t> offsets = samples;
    offsets.push_back(2);
    cases.push_back({"MSDeformAttnFused",
                     size.what,
                     {},
                     {random_tensor({size.batch, pyramid.tokens, size.heads, size.channels}, -1, 1, 1),
                      integers({levels, 2}, pyramid.shapes), integers({levels}, pyramid.starts),
                      random_tensor({size.batch, size.queries, levels, size.reference_width}, 0, 1, 2),
                      random_tensor(offsets, -3, 3, 3), random_tensor(samples, -2, 2, 4)},
                     {size.batch, size.queries, size.heads * size.channels},
                     [](const Inputs& in, const vd_tensor* out) {
                       return vd_ms_deform_attn_fused_forward(in[0], in[1], in[2], in[3], in[4], in[5], out, 1);
                     },
                     size.kept});
  }
}

void add_masked_conv(std::vector<Case>& cases) {
  struct Size {
    const char* what;
    int64_t batch, channels, outputs, groups, kernel;
    vd_masked_conv_params params;
    int32_t mask_dtype;
    bool mask_stays;
  };
  const int64_t height = 11, width = 14;
  for (const Size& size : {Size{"3x3", 2, 16, 8, 1, 3, {{1, 1}, {1, 1}, {1, 1}, 1}, VD_FLOAT32, false},
                           Size{"float32 mask", 1, 8, 12, 1, 3, {{1, 1}, {1, 1}, {1, 1}, 1}, VD_FLOAT32, true},
                           Size{"bool mask", 1, 8, 12, 1, 1, {{1, 1}, {0, 0}, {1, 1}, 1}, VD_BOOL, true},
                           Size{"groups", 2, 12, 6, 3, 3, {{2, 1}, {2, 1}, {2, 1}, 3}, VD_FLOAT32, false},
                           Size{"no batch", 0, 4, 4, 1, 3, {{1, 1}, {1, 1}, {1, 1}, 1}, VD_FLOAT32, false}}) {
    const vd_masked_conv_params params = size.params;
    const auto extent = [&](int axis, int64_t input) {
      const int64_t reach = params.dilation[axis] * (size.kernel - 1) + 1;
      return (input + 2 * params.padding[axis] - reach) / params.stride[axis] + 1;
    };
    const int64_t rows = extent(0, height), columns = extent(1, width);
    // About a quarter is computed.
    std::vector<double> mask = random_tensor({size.batch, rows, columns}, -3, 1, 3).values();
    for (double& value : mask) value = size.mask_dtype == VD_BOOL ? value > 0 : value;
    const double top = 1.0 * params.padding[0], left = 1.0 * params.padding[1];
    cases.push_back(
        {"MaskedConv",
         size.what,
         {{"strides", {1.0 * params.stride[0], 1.0 * params.stride[1]}},
          {"pads", {top, left, top, left}},
          {"dilations", {1.0 * params.dilation[0], 1.0 * params.dilation[1]}},
          {"group", {1.0 * params.groups}}},
         {random_tensor({size.batch, size.channels, height, width}, -1, 1, 1),
          Tensor({size.batch, rows, columns}, size.mask_dtype, mask),
          random_tensor({size.outputs, size.channels / size.groups, size.kernel, size.kernel}, -0.3, 0.3, 2),
          random_tensor({size.outputs}, -1, 1, 4)},
         {size.batch, size.outputs, rows, columns},
         [params](const Inputs& in, const vd_tensor* out) {
           return vd_masked_conv_forward(in[0], in[1], in[2], in[3], out, &params, 1);
         },
         size.mask_stays ? std::vector<size_t>{1} : std::vector<size_t>{}});
  }
}

void add_multi_level_roi_align(std::vector<Case>& cases) {
  struct Size {
    const char* what;
    int64_t rois, channels, bins, sampling_ratio;
    std::vector<double> scales;
  };
  const int64_t batch = 2, image_height = 96, image_width = 128;
  for (const Size& size :
       {Size{"four levels", 40, 16, 7, 2, {0.25, 0.125, 0.0625, 0.03125}}, Size{"adaptive", 12, 5, 3, 0, {0.25, 0.125}},
        Size{"one level", 7, 8, 4, 1, {0.5}}, Size{"no rois", 0, 4, 7, 2, {0.25, 0.125}}}) {
    vd_roi_align_params params = {size.bins, size.bins, size.sampling_ratio, static_cast<int64_t>(size.scales.size()),
                                  24.0f,     {}};
    std::vector<double> boxes, indices;
    const std::vector<double> corners = random_tensor({size.rois, 4}, 0, 1, 1).values();
    for (int64_t r = 0; r < size.rois; ++r) {
      const double* at = corners.data() + 4 * r;
      const double left = at[0] * image_width - 8, top = at[1] * image_height - 8;
      boxes.insert(boxes.end(), {left, top, left + at[2] * image_width, top + at[3] * image_height});
      indices.push_back(static_cast<double>(r % batch));
    }
    Case one = {"MultiLevelRoiAlign",
                size.what,
                {{"output_height", {1.0 * size.bins}},
                 {"output_width", {1.0 * size.bins}},
                 {"sampling_ratio", {1.0 * size.sampling_ratio}},
                 {"spatial_scales", size.scales, true},
                 {"finest_scale", {params.finest_scale}, true}},
                {Tensor({size.rois, 4}, VD_FLOAT32, boxes), integers({size.rois}, indices)},
                {size.rois, size.channels, size.bins, size.bins},
                {},
                {0}};
    for (size_t level = 0; level < size.scales.size(); ++level) {
      const double scale = size.scales[level];
      params.spatial_scales[level] = static_cast<float>(scale);
      const auto height = static_cast<int64_t>(image_height * scale), width = static_cast<int64_t>(image_width * scale);
      const auto seed = static_cast<uint32_t>(level + 2);
      one.inputs.push_back(random_tensor({batch, size.channels, height, width}, -1, 1, seed));
    }
    one.reference = [params](const Inputs& in, const vd_tensor* out) {
      return vd_multi_level_roi_align_forward(in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], out,
                                              &params, 1);
    };
    cases.push_back(one);
  }
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  add_deform_conv(cases);
  add_masked_conv(cases);
  add_ms_deform_attn(cases);
  add_ms_deform_attn_fused(cases);
  add_multi_level_roi_align(cases);
  return cases;
}

}  // namespace harness
}  // namespace visdeploy
