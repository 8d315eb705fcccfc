// CPU kernels of multi-scale deformable attention, one table per instruction set.
#pragma once

#include "visdeploy/ms_deform_attn.h"

namespace visdeploy {

// Kernels find the sampling points of several rows at a time: enough to fill vectors and to hide what the first loads
// wait for, few enough to stay in the innermost cache.
constexpr int64_t kBatchPoints = 256;
constexpr int64_t kVectorPoints = 16;  // arrays by point are filled up to a multiple of these
constexpr int64_t kCacheLine = 64;

VD_HD int64_t batch_rows(const MsDeformAttn& op) {
  const int64_t samples = op.levels * op.points;
  return samples >= kBatchPoints ? 1 : kBatchPoints / samples;
}

VD_HD int64_t padded_points(const MsDeformAttn& op) {
  return (batch_rows(op) * op.levels * op.points + kVectorPoints - 1) / kVectorPoints * kVectorPoints;
}

// What kernels know of a batch's sampling points before they see one: arrays by point, row after row.
template <typename Real>
struct PointLevels {
  const Real* size;        // (width, height)
  const int32_t* stride;   // from a token to the one below it
  const int32_t* start;    // the level's first token
  const int32_t* nowhere;  // packed maps only: a token for points outside; it and its three neighbours are zero
};

// Some maps (a sample under one head each), copied one after the other with zeros around every level, so that all four
// neighbours of any point can be read. One column of zeros serves two lines: the right border of one is the left
// border of the next. Without this the channels of one head lie so far apart that they fill a fraction of the cache.
struct PackedMaps {
  int64_t first = 0, count = 0;  // maps [first, first + count) of the batch * heads ones
  int64_t tokens = 0;            // of one packed map
  int64_t lines = 0;             // of one packed map: height + 2 for every level
  void* data = nullptr;          // [count, tokens, channels], of Real
};

// The types of a call's tensors, as an index: vd_dtype where points are stored like values, else one of these.
enum { kHalfWithFloatPoints = 5, kBFloat16WithFloatPoints = 6, kMsDeformAttnTypes = 7 };

struct MsDeformAttnCpuKernels {
  // Copies lines [begin, end) of the maps.count * maps.lines ones.
  void (*pack[kMsDeformAttnTypes])(const MsDeformAttn& op, const PackedMaps& maps, int64_t begin, int64_t end);
  // Rows [begin, end) of the maps.count * queries ones, map by map. levels is a PointLevels<Real>. The first index is
  // whether the call has the fused form.
  void (*packed[2][kMsDeformAttnTypes])(const MsDeformAttn& op, const PackedMaps& maps, const void* levels,
                                        int64_t begin, int64_t end, void* scratch);
  // Rows [begin, end) of the batch * queries * heads ones, straight from value.
  void (*direct[2][kMsDeformAttnTypes])(const MsDeformAttn& op, const void* levels, int64_t begin, int64_t end,
                                        void* scratch);
  // Maps [begin, end) of the batch * heads ones, for the types up to double. Each map's gradient is summed by one
  // thread, in one order.
  void (*backward[3])(const MsDeformAttn& op, int64_t begin, int64_t end);
};

extern const MsDeformAttnCpuKernels ms_deform_attn_baseline;
extern const MsDeformAttnCpuKernels ms_deform_attn_avx2;
extern const MsDeformAttnCpuKernels ms_deform_attn_avx512;

// The table for cpu_isa().
const MsDeformAttnCpuKernels& ms_deform_attn_cpu();

// Bytes of scratch that one run of `packed` or `direct` needs.
int64_t ms_deform_attn_scratch(const MsDeformAttn& op);

}  // namespace visdeploy
