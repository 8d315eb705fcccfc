// Compiled without contraction to multiply-adds: a distance must be the float32 number that NumPy computes.
#include "embedding_clusters/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/parallel.h"

namespace visdeploy {
namespace {

// Points that are tested together. Neighbours mostly belong to the same object, so that few blocks reach into another.
constexpr int64_t kBlock = 64;
constexpr int32_t kFree = -1;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Margins of a bound, far above the rounding of a float32 distance and above the squares that float32 has no number
// for.
constexpr double kRelativeSlack = 1e-5, kAbsoluteSlack = 1e-30;

struct Seed {
  int64_t point;
  std::vector<float> center, bandwidths;  // [dimensions]
  bool bounded;                           // whether a bound can be trusted: numbers are finite, bandwidths not negative
};

class Search {
 public:
  Search(const EmbeddingClusters& call, int threads)
      : call_(call),
        threads_(threads),
        blocks_((call.points + kBlock - 1) / kBlock),
        values_(blocks_ * call.dimensions * kBlock * static_cast<int64_t>(sizeof(float))),
        low_(size(blocks_ * call.dimensions)),
        high_(low_.size()),
        seediness_(size(call.points)),
        largest_(size(blocks_)),
        free_(size(blocks_)) {
    std::fill_n(call.labels, call.points, kFree);
    std::fill_n(call.seeds, call.max_clusters, -1);
    for_blocks(4 * call.dimensions, [this](int64_t block, const std::vector<int64_t>& ends) { load(block, ends); });
  }

  void run() {
    std::vector<Seed> seeds;
    std::vector<uint8_t> rest;
    for (int64_t number = 0; number < call_.max_clusters; ++number) {
      const int64_t best = best_point();
      const bool weak = best >= 0 && seediness_[size(best)] < call_.min_seediness;
      // Before the last cluster is formed, as in the published implementation.
      if (weak || number == call_.max_clusters - 1) rest = free_points();
      if (best < 0 || weak) break;
      seeds.push_back(seed_at(best));
      call_.seeds[number] = best;
      for_blocks(call_.dimensions, [&](int64_t block, const std::vector<int64_t>&) {
        take(block, static_cast<int32_t>(number), seeds.back());
      });
    }
    if (rest.empty() || seeds.empty()) return;
    for_blocks(call_.dimensions, [&](int64_t block, const std::vector<int64_t>&) { assign(block, rest, seeds); });
  }

 private:
  static size_t size(int64_t count) { return static_cast<size_t>(count); }

  int64_t length(int64_t block) const { return std::min(kBlock, call_.points - block * kBlock); }

  float* values(int64_t block) const { return static_cast<float*>(values_.get()) + block * call_.dimensions * kBlock; }

  // cost: multiply-adds per point.
  template <typename Body>
  void for_blocks(int64_t cost, const Body& body) const {
    std::vector<int64_t> ends(size(call_.frames));
    int64_t end = 0;
    for (int64_t t = 0; t < call_.frames; ++t) ends[size(t)] = end += call_.counts[t];
    parallel_for(blocks_, cost * kBlock, threads_, [&](int64_t begin, int64_t stop) {
      for (int64_t block = begin; block < stop; ++block) body(block, ends);
    });
  }

  // Frame of a point.
  static int64_t frame_of(int64_t point, const std::vector<int64_t>& ends) {
    return std::upper_bound(ends.begin(), ends.end(), point) - ends.begin();
  }

  // Copies the embeddings of a block, so that each dimension is contiguous, and finds the box that has them.
  void load(int64_t block, const std::vector<int64_t>& ends) {
    const int64_t first = block * kBlock, count = length(block);
    int64_t offsets[kBlock], frame = frame_of(first, ends);
    float largest = -kInfinity;
    for (int64_t i = 0; i < count; ++i) {
      while (first + i >= ends[size(frame)]) ++frame;
      const int64_t place = call_.places[first + i];
      offsets[i] = frame * call_.dimensions * call_.pixels + place;
      const float seed = call_.seediness[frame * call_.pixels + place];
      seediness_[size(first + i)] = seed > -kInfinity ? seed : -kInfinity;  // NaN as well
      largest = std::max(largest, seediness_[size(first + i)]);
    }
    largest_[size(block)] = largest;
    free_[size(block)] = count;
    for (int64_t k = 0; k < call_.dimensions; ++k) {
      const float* source = call_.embeddings + k * call_.pixels;
      float* row = values(block) + k * kBlock;
      for (int64_t i = 0; i < count; ++i) row[i] = source[offsets[i]];
      std::fill(row + count, row + kBlock, std::numeric_limits<float>::quiet_NaN());  // near nothing
      float low = kInfinity, high = -kInfinity;
      for (int64_t i = 0; i < kBlock; ++i) {
        low = row[i] < low ? row[i] : low;
        high = row[i] > high ? row[i] : high;
      }
      low_[size(block * call_.dimensions + k)] = low;
      high_[size(block * call_.dimensions + k)] = high;
    }
  }

  // The first free point with the largest seediness; -1 if no point is free.
  int64_t best_point() const {
    int64_t best = -1;
    for (int64_t block = 0; block < blocks_; ++block) {
      if (free_[size(block)] > 0 && (best < 0 || largest_[size(block)] > largest_[size(best)])) best = block;
    }
    if (best < 0) return -1;
    int64_t point = best * kBlock;
    while (call_.labels[point] != kFree || seediness_[size(point)] != largest_[size(best)]) ++point;
    return point;
  }

  std::vector<uint8_t> free_points() const {
    std::vector<uint8_t> found(size(call_.points));
    for (int64_t i = 0; i < call_.points; ++i) found[size(i)] = call_.labels[i] == kFree;
    return found;
  }

  Seed seed_at(int64_t point) const {
    const int64_t place = call_.places[point];
    int64_t frame = 0;
    for (int64_t end = call_.counts[0]; point >= end; end += call_.counts[++frame]) {
    }
    Seed seed = {point, {}, {}, true};
    for (int64_t k = 0; k < call_.dimensions; ++k) {
      seed.center.push_back(call_.embeddings[(frame * call_.dimensions + k) * call_.pixels + place]);
      seed.bandwidths.push_back(k < call_.predicted
                                    ? call_.bandwidths[(frame * call_.predicted + k) * call_.pixels + place]
                                    : call_.free_bandwidths[k - call_.predicted]);
      seed.bounded &= std::isfinite(seed.center.back()) && seed.bandwidths.back() >= 0;
    }
    return seed;
  }

  // Whether no point of a block can be within a distance. NaN in the sum, of 0 * infinity, is no evidence.
  bool is_beyond(int64_t block, const Seed& seed, float distance) const {
    if (!seed.bounded) return false;
    const float *low = &low_[size(block * call_.dimensions)], *high = &high_[size(block * call_.dimensions)];
    double sum = 0;
    for (int64_t k = 0; k < call_.dimensions; ++k) {
      const double center = seed.center[size(k)];
      const double gap = std::max({low[k] - center, center - high[k], 0.0});
      sum += gap * gap * seed.bandwidths[size(k)];
    }
    return sum > static_cast<double>(distance) * distance * (1 + kRelativeSlack) + kAbsoluteSlack;
  }

  void measure(int64_t block, const Seed& seed, float* distances) const {
    std::fill_n(distances, kBlock, 0.0f);
    for (int64_t k = 0; k < call_.dimensions; ++k) {
      const float center = seed.center[size(k)], bandwidth = seed.bandwidths[size(k)];
      const float* row = values(block) + k * kBlock;
      for (int64_t i = 0; i < kBlock; ++i) {
        const float difference = row[i] - center;
        distances[i] += difference * difference * bandwidth;
      }
    }
    for (int64_t i = 0; i < kBlock; ++i) distances[i] = std::sqrt(distances[i]);
  }

  // Labels the free points of a block within the primary distance.
  void take(int64_t block, int32_t number, const Seed& seed) {
    if (free_[size(block)] == 0 || is_beyond(block, seed, call_.primary_distance)) return;
    float distances[kBlock];
    measure(block, seed, distances);
    int32_t* labels = call_.labels + block * kBlock;
    const float* seediness = &seediness_[size(block * kBlock)];
    float largest = -kInfinity;
    int64_t free = 0;
    for (int64_t i = 0; i < length(block); ++i) {
      const bool was_free = labels[i] == kFree, near = distances[i] <= call_.primary_distance;
      labels[i] = was_free && near ? number : labels[i];
      largest = was_free && !near ? std::max(largest, seediness[i]) : largest;
      free += was_free && !near;
    }
    largest_[size(block)] = largest;
    free_[size(block)] = free;
  }

  // Gives points to their farthest cluster, if it is within the secondary distance.
  void assign(int64_t block, const std::vector<uint8_t>& rest, const std::vector<Seed>& seeds) {
    const uint8_t* chosen = &rest[size(block * kBlock)];
    const int64_t count = length(block);
    bool within[kBlock];
    std::copy_n(chosen, count, within);
    float distances[kBlock], farthest[kBlock];
    int32_t owners[kBlock] = {};
    std::fill_n(farthest, kBlock, -1.0f);
    for (size_t number = 0; number < seeds.size(); ++number) {
      if (std::find(within, within + count, true) == within + count) return;
      if (is_beyond(block, seeds[number], call_.secondary_distance)) return;
      measure(block, seeds[number], distances);
      for (int64_t i = 0; i < count; ++i) {
        within[i] = within[i] && distances[i] <= call_.secondary_distance;
        const bool farther = within[i] && distances[i] > farthest[i];
        farthest[i] = farther ? distances[i] : farthest[i];
        owners[i] = farther ? static_cast<int32_t>(number) : owners[i];
      }
    }
    int32_t* labels = call_.labels + block * kBlock;
    for (int64_t i = 0; i < count; ++i) labels[i] = within[i] ? owners[i] : labels[i];
  }

  const EmbeddingClusters& call_;
  int threads_;
  int64_t blocks_;
  AlignedBuffer values_;           // [blocks, dimensions, kBlock]
  std::vector<float> low_, high_;  // [blocks, dimensions]
  std::vector<float> seediness_;   // [points]
  std::vector<float> largest_;     // [blocks], seediness of free points
  std::vector<int64_t> free_;      // [blocks], number of free points
};

}  // namespace

void find_clusters(const EmbeddingClusters& call, int threads) { Search(call, threads).run(); }

}  // namespace visdeploy
