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
  for (const Size& size : {Size{"wide", 2, 37, 8, 32, 4, VD_INT64}, Size{"odd channels", 1, 5, 3, 7, 2, VD_INT64},
                           Size{"int32 shapes", 1, 9, 2, 16, 1, VD_INT32}, Size{"no queries", 1, 0, 2, 8, 2, VD_INT64},
                           Size{"no batch", 0, 4, 2, 8, 2, VD_INT64}}) {
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

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  add_ms_deform_attn(cases);
  return cases;
}

}  // namespace harness
}  // namespace visdeploy
