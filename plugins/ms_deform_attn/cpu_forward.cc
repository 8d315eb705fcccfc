#include "ms_deform_attn/cpu_forward.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "ms_deform_attn/cpu_kernel.h"

namespace visdeploy {
namespace {

// Maps are packed for as many heads at a time as fit here. Larger, fewer passes wait for all threads, which decides
// with two threads and more; smaller, the packed maps stay in a nearer cache, which is a fifth faster with one thread
// alone.
constexpr int64_t kPackedBytes = 12 << 20;

// Packing one token costs about as much as it saves this many reads of a neighbour.
constexpr int64_t kReadsWorthPacking = 4;

int types_of(const MsDeformAttnCall& call) {
  if (call.points_dtype == call.dtype) return call.dtype;
  return call.dtype == VD_FLOAT16 ? kHalfWithFloatPoints : kBFloat16WithFloatPoints;
}

// What PointLevels points to.
template <typename Real>
struct PointTable {
  std::vector<Real> size;
  std::vector<int32_t> stride, start, nowhere;
  PointLevels<Real> levels;

  PointTable(const MsDeformAttn& op, bool packed)
      : size(2 * count(op)), stride(count(op)), start(count(op)), nowhere(count(op)) {
    const auto rows = static_cast<size_t>(batch_rows(op));
    size_t i = 0;
    for (size_t row = 0; row < rows; ++row) {
      int64_t token = 0;  // of a packed map
      for (int64_t l = 0; l < op.levels; ++l) {
        const Level level = op.geometry[l];
        const int64_t line = packed ? level.width + int64_t(1) : level.width;
        for (int64_t p = 0; p < op.points; ++p, ++i) {
          size[2 * i] = static_cast<Real>(level.width);
          size[2 * i + 1] = static_cast<Real>(level.height);
          stride[i] = static_cast<int32_t>(line);
          start[i] = static_cast<int32_t>(packed ? token + line + 1 : level.start);
          nowhere[i] = static_cast<int32_t>(packed ? token + (level.height + 1) * line : 0);
        }
        token += (level.height + 2) * line;
      }
    }
    levels = {size.data(), stride.data(), start.data(), nowhere.data()};
  }

  static size_t count(const MsDeformAttn& op) { return static_cast<size_t>(padded_points(op)); }
};

PackedMaps plan_packed_maps(const MsDeformAttn& op) {
  PackedMaps maps;
  maps.tokens = 2;  // that close the last level
  for (int64_t l = 0; l < op.levels; ++l) {
    maps.tokens += (op.geometry[l].height + int64_t(2)) * (op.geometry[l].width + int64_t(1));
    maps.lines += op.geometry[l].height + int64_t(2);
  }
  return maps;
}

// Depends on shapes alone, so that results do not depend on the number of threads.
bool packing_pays(const MsDeformAttn& op, const PackedMaps& maps) {
  // Offsets in packed maps are counted in 32 bits.
  if (maps.tokens > std::numeric_limits<int32_t>::max() / op.channels) return false;
  return op.queries >= kReadsWorthPacking * maps.tokens / (4 * op.levels * op.points);
}

template <typename Real>
void forward_packed(const MsDeformAttnCall& call, PackedMaps maps, const CpuWorkers& workers) {
  const MsDeformAttn& op = call.op;
  const int types = types_of(call);
  const auto pack = ms_deform_attn_cpu().pack[types];
  const auto sum = ms_deform_attn_cpu().packed[op.reference_size > 0][types];
  const PointTable<Real> table(op, true);
  const int64_t bytes = maps.tokens * op.channels * static_cast<int64_t>(sizeof(Real));
  const int64_t together = std::clamp<int64_t>(kPackedBytes / bytes, 1, op.batch * op.heads);
  const std::unique_ptr<char[]> memory(new char[static_cast<size_t>(together * bytes + kCacheLine)]);
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory.get()) % kCacheLine);
  maps.data = memory.get() + (kCacheLine - past);
  for (maps.first = 0; maps.first < op.batch * op.heads; maps.first += maps.count) {
    maps.count = std::min(together, op.batch * op.heads - maps.first);
    workers(maps.count * maps.lines, maps.tokens / maps.lines * op.channels, 0,
            [&](int64_t begin, int64_t end, void*) { pack(op, maps, begin, end); });
    workers(maps.count * op.queries, row_cost(op) / op.heads, ms_deform_attn_scratch(op),
            [&](int64_t begin, int64_t end, void* scratch) { sum(op, maps, &table.levels, begin, end, scratch); });
  }
}

template <typename Real>
void forward_direct(const MsDeformAttnCall& call, const CpuWorkers& workers) {
  const MsDeformAttn& op = call.op;
  const auto sum = ms_deform_attn_cpu().direct[op.reference_size > 0][types_of(call)];
  const PointTable<Real> table(op, false);
  workers(op.batch * op.queries * op.heads, row_cost(op) / op.heads, ms_deform_attn_scratch(op),
          [&](int64_t begin, int64_t end, void* scratch) { sum(op, &table.levels, begin, end, scratch); });
}

template <typename Real>
void forward(const MsDeformAttnCall& call, const CpuWorkers& workers) {
  const PackedMaps maps = plan_packed_maps(call.op);
  if (packing_pays(call.op, maps)) {
    forward_packed<Real>(call, maps, workers);
  } else {
    forward_direct<Real>(call, workers);
  }
}

}  // namespace

void ms_deform_attn_cpu_forward(const MsDeformAttnCall& call, const CpuWorkers& workers) {
  if (call.op.batch == 0 || call.op.queries == 0) return;
  if (call.dtype == VD_FLOAT64) {
    forward<double>(call, workers);
  } else {
    forward<float>(call, workers);
  }
}

}  // namespace visdeploy
