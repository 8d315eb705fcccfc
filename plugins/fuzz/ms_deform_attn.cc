// vd_ms_deform_attn_*: a small pyramid and its samples, with faults.
#include "fuzz/target.h"
#include "fuzz/tensor.h"

namespace visdeploy::fuzz {
namespace {

constexpr const char* kOp = "ms_deform_attn";

struct Sizes {
  int64_t batch, heads, channels, queries, points;
  std::vector<int64_t> shapes, starts;
  int64_t tokens = 0;

  explicit Sizes(Bytes& bytes)
      : batch(bytes.below(3)),
        heads(bytes.between(1, 3)),
        channels(bytes.between(1, 40)),
        queries(bytes.below(5)),
        points(bytes.between(1, 4)) {
    for (int64_t level = bytes.between(1, 4); level > 0; --level) {
      const int64_t height = bytes.between(1, 5), width = bytes.between(1, 5);
      shapes.insert(shapes.end(), {height, width});
      starts.push_back(tokens);
      tokens += height * width;
    }
  }

  int64_t levels() const { return static_cast<int64_t>(starts.size()); }
};

enum Form { kForward, kBackward, kFused };

void call(Form form, bool cuda, const std::vector<const vd_tensor*>& t, int threads) {
  switch (form) {
    case kForward:
      return check_result(kOp, cuda ? vd_ms_deform_attn_forward_cuda(t[0], t[1], t[2], t[3], t[4], t[5], nullptr)
                                    : vd_ms_deform_attn_forward(t[0], t[1], t[2], t[3], t[4], t[5], threads));
    case kFused:
      return check_result(kOp,
                          cuda ? vd_ms_deform_attn_fused_forward_cuda(t[0], t[1], t[2], t[3], t[4], t[5], t[6], nullptr)
                               : vd_ms_deform_attn_fused_forward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], threads));
    case kBackward:
      return check_result(
          kOp, cuda ? vd_ms_deform_attn_backward_cuda(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], nullptr)
                    : vd_ms_deform_attn_backward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], threads));
  }
}

void run(Bytes& bytes) {
  const auto form = static_cast<Form>(bytes.below(3));
  const bool cuda = bytes.below(2), narrow = bytes.seldom(), mixed = bytes.seldom();
  const int threads = static_cast<int>(bytes.between(-1, 3));
  const Sizes s(bytes);
  const int32_t dtype = any_float(bytes), points = mixed ? VD_FLOAT32 : dtype, index = narrow ? VD_INT32 : VD_INT64;
  const Shape value = {s.batch, s.tokens, s.heads, s.channels}, output = {s.batch, s.queries, s.heads * s.channels};
  const Shape weights = {s.batch, s.queries, s.heads, s.levels(), s.points};
  const Shape locations = {s.batch, s.queries, s.heads, s.levels(), s.points, 2};
  std::vector<Tensor> tensors;
  tensors.emplace_back(value, dtype);
  tensors.emplace_back(Tensor({s.levels(), 2}, index)).holding(s.shapes);
  tensors.emplace_back(Tensor({s.levels()}, index)).holding(s.starts);
  if (form == kFused) tensors.emplace_back(Shape{s.batch, s.queries, s.levels(), 2 * bytes.between(1, 2)}, points);
  tensors.emplace_back(locations, points);
  tensors.emplace_back(weights, points);
  tensors.emplace_back(output, dtype);
  if (form == kBackward) {
    tensors.emplace_back(value, dtype);
    tensors.emplace_back(locations, points);
    tensors.emplace_back(weights, points);
  }
  spoil_some(tensors, bytes);
  call(form, cuda, prepare_all(tensors, bytes), threads);
}

const Subject subject(run);

}  // namespace
}  // namespace visdeploy::fuzz
