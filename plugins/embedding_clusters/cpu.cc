// The C interface: checks of what a caller hands in, and the search.

#include <cmath>
#include <string>

#include "core/error.h"
#include "core/tensor.h"
#include "embedding_clusters/search.h"

using namespace visdeploy;

namespace {

constexpr const char* kOp = "embedding_clusters";
constexpr int64_t kMostClusters = 1 << 20;

TensorCheck checked(const char* name, const vd_tensor* tensor, int rank, int32_t dtype) {
  TensorCheck check(kOp, name, tensor, rank);
  check.has_dtype({dtype}).is_contiguous();
  return check;
}

void check_params(EmbeddingClusters& call, const vd_embedding_clusters_params* params) {
  if (params == nullptr) fail(kOp, "parameters", "NULL", "a vd_embedding_clusters_params");
  if (params->max_clusters < 0 || params->max_clusters > kMostClusters) {
    fail(kOp, "parameter max_clusters", std::to_string(params->max_clusters),
         "from 0 to " + std::to_string(kMostClusters));
  }
  call.max_clusters = params->max_clusters;
  call.min_seediness = params->min_seediness;
  call.primary_distance = params->primary_distance;
  call.secondary_distance = params->secondary_distance;
}

void check_points(const EmbeddingClusters& call) {
  int64_t left = call.points;
  for (int64_t t = 0; t < call.frames; ++t) {
    if (call.counts[t] < 0 || call.counts[t] > left) {
      fail(kOp, "tensor counts at " + std::to_string(t), std::to_string(call.counts[t]),
           "numbers from 0 with the sum " + std::to_string(call.points) + ", the length of places");
    }
    left -= call.counts[t];
  }
  if (left != 0) {
    fail(kOp, "tensor counts has the wrong sum", std::to_string(call.points - left), std::to_string(call.points));
  }
  for (int64_t i = 0; i < call.points; ++i) {
    if (call.places[i] < 0 || call.places[i] >= call.pixels) {
      fail(kOp, "tensor places at " + std::to_string(i), std::to_string(call.places[i]),
           "from 0 to " + std::to_string(call.pixels - 1));
    }
  }
}

}  // namespace

extern "C" int vd_embedding_clusters(const vd_tensor* embeddings, const vd_tensor* bandwidths,
                                     const vd_tensor* free_bandwidths, const vd_tensor* seediness,
                                     const vd_tensor* counts, const vd_tensor* places, const vd_tensor* labels,
                                     const vd_tensor* seeds, const vd_embedding_clusters_params* params, int threads) {
  return guarded([&] {
    EmbeddingClusters call;
    check_params(call, params);
    const TensorCheck maps = checked("embeddings", embeddings, 3, VD_FLOAT32);
    const TensorCheck spread = checked("bandwidths", bandwidths, 3, VD_FLOAT32);
    const TensorCheck pixels = checked("places", places, 1, VD_INT64);
    call.frames = maps.dim(0), call.dimensions = maps.dim(1), call.pixels = maps.dim(2);
    call.predicted = spread.dim(1), call.points = pixels.dim(0);
    maps.elements();
    if (call.dimensions < 1 || call.predicted > call.dimensions) {
      fail(kOp, "tensor embeddings has the wrong shape", shape_text(maps.shape()),
           "at least one dimension, and the " + std::to_string(call.predicted) + " of bandwidths");
    }
    spread.has_shape({call.frames, call.predicted, call.pixels});
    call.embeddings = static_cast<const float*>(maps.data());
    call.bandwidths = static_cast<const float*>(spread.data());
    call.places = static_cast<const int64_t*>(pixels.data());
    const auto data = [](const char* name, const vd_tensor* tensor, const Shape& shape, int32_t dtype) {
      const TensorCheck check(kOp, name, tensor, static_cast<int>(shape.size()));
      return check.has_dtype({dtype}).has_shape(shape).is_contiguous().data();
    };
    call.free_bandwidths = static_cast<const float*>(
        data("free_bandwidths", free_bandwidths, {call.dimensions - call.predicted}, VD_FLOAT32));
    call.seediness = static_cast<const float*>(data("seediness", seediness, {call.frames, call.pixels}, VD_FLOAT32));
    call.counts = static_cast<const int64_t*>(data("counts", counts, {call.frames}, VD_INT64));
    call.labels = static_cast<int32_t*>(data("labels", labels, {call.points}, VD_INT32));
    call.seeds = static_cast<int64_t*>(data("seeds", seeds, {call.max_clusters}, VD_INT64));
    check_points(call);
    find_clusters(call, threads);
  });
}
