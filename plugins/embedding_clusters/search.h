// Greedy clustering of points by their embeddings; see README.md for the algorithm.
#pragma once

#include <cstdint>

namespace visdeploy {

// A checked call. Points are numbered frame by frame, in the order of places.
struct EmbeddingClusters {
  int64_t frames = 0, dimensions = 0, predicted = 0, pixels = 0, points = 0;
  const float* embeddings = nullptr;       // [frames, dimensions, pixels]
  const float* bandwidths = nullptr;       // [frames, predicted, pixels]
  const float* free_bandwidths = nullptr;  // [dimensions - predicted]
  const float* seediness = nullptr;        // [frames, pixels]
  const int64_t* counts = nullptr;         // [frames], points of each frame
  const int64_t* places = nullptr;         // [points], from 0 to pixels - 1
  float min_seediness = 0, primary_distance = 0, secondary_distance = 0;
  int64_t max_clusters = 0;
  int32_t* labels = nullptr;  // [points], overwritten: number of the cluster, or -1
  int64_t* seeds = nullptr;   // [max_clusters], overwritten: the point at which each cluster starts, or -1
};

// The result is the same for any number of threads.
void find_clusters(const EmbeddingClusters& call, int threads);

}  // namespace visdeploy
