// vd_embedding_clusters: a few small frames, with faults in tensors and parameters.
#include "fuzz/target.h"
#include "fuzz/tensor.h"

namespace visdeploy::fuzz {
namespace {

constexpr const char* kOp = "embedding_clusters";

void run(Bytes& bytes) {
  const int64_t frames = bytes.below(4), dimensions = bytes.between(1, 4), predicted = bytes.below(dimensions + 1);
  const int64_t pixels = bytes.between(1, 100), clusters = bytes.below(6);
  const int threads = static_cast<int>(bytes.between(-1, 3));
  std::vector<int64_t> counts, places;
  for (int64_t t = 0; t < frames; ++t) {
    counts.push_back(bytes.below(pixels + 1));
    for (int64_t i = 0; i < counts.back(); ++i) places.push_back(i);
  }
  if (bytes.seldom() && frames > 0) counts[static_cast<size_t>(bytes.below(frames))] = bytes.odd_integer();
  if (bytes.seldom() && !places.empty()) places.back() = bytes.odd_integer();
  const auto points = static_cast<int64_t>(places.size());
  std::vector<Tensor> tensors;
  tensors.emplace_back(Shape{frames, dimensions, pixels}, VD_FLOAT32);
  tensors.emplace_back(Shape{frames, predicted, pixels}, VD_FLOAT32);
  tensors.emplace_back(Shape{dimensions - predicted}, VD_FLOAT32);
  tensors.emplace_back(Shape{frames, pixels}, VD_FLOAT32);
  tensors.emplace_back(Shape{frames}, VD_INT64).holding(counts);
  tensors.emplace_back(Shape{points}, VD_INT64).holding(places);
  tensors.emplace_back(Shape{points}, VD_INT32);
  tensors.emplace_back(Shape{clusters}, VD_INT64);
  vd_embedding_clusters_params params = {static_cast<float>(bytes.number()), static_cast<float>(bytes.number()),
                                         static_cast<float>(bytes.number()), static_cast<int32_t>(clusters)};
  if (bytes.seldom()) params.max_clusters = static_cast<int32_t>(bytes.odd_integer());
  const vd_embedding_clusters_params* given = bytes.seldom() ? nullptr : &params;
  spoil_some(tensors, bytes);
  const std::vector<const vd_tensor*> t = prepare_all(tensors, bytes);
  check_result(kOp, vd_embedding_clusters(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], given, threads));
}

const Subject subject(run);

}  // namespace
}  // namespace visdeploy::fuzz
