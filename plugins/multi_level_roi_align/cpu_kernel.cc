// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "multi_level_roi_align/cpu_kernel.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace visdeploy {
namespace {

// sums[x] = sum over taps of weight * map[row, x] for kWidth columns.
template <int kWidth, typename T>
VD_HD void combine(const T* map, int64_t stride, const Acc<T>* weight, const int32_t* row, int32_t count,
                   Acc<T>* sums) {
  Acc<T> sum[kWidth] = {};
  for (int32_t t = 0; t < count; ++t) {
    const T* cells = map + row[t] * stride;
    for (int x = 0; x < kWidth; ++x) sum[x] += weight[t] * load(cells + x);
  }
  for (int x = 0; x < kWidth; ++x) sums[x] = sum[x];
}

template <typename T>
VD_HD void combine_rows(const T* map, int64_t stride, const Acc<T>* weight, const int32_t* row, int32_t count,
                        int32_t width, Acc<T>* sums) {
  int32_t x = 0;
  for (; width - x >= kRoiAlignLanes; x += kRoiAlignLanes)
    combine<kRoiAlignLanes>(map + x, stride, weight, row, count, sums + x);
  if (x < width && width >= kRoiAlignLanes) {
    // Some columns twice, in place of a remainder.
    x = width - kRoiAlignLanes;
    return combine<kRoiAlignLanes>(map + x, stride, weight, row, count, sums + x);
  }
  for (; width - x >= 4; x += 4) combine<4>(map + x, stride, weight, row, count, sums + x);
  for (; x < width; ++x) combine<1>(map + x, stride, weight, row, count, sums + x);
}

// One row of bins from the combined rows: the plain loop, for any type and width.
template <typename Real, typename T>
VD_HD void combine_columns(const Real* row, int32_t, const RoiBinTaps<Real>& taps, int32_t most, int32_t bins,
                           T* output) {
  constexpr int kBins = 8;
  for (int32_t first = 0; first < bins; first += kBins) {
    Real sums[kBins] = {};
    for (int32_t t = 0; t < most; ++t) {
      const Real* weight = taps.weight + t * taps.tap_step + first;
      const int32_t* index = taps.index + t * taps.tap_step + first;
      for (int b = 0; b < kBins; ++b) sums[b] += weight[b] * row[index[b]];
    }
    for (int32_t b = 0; b < lesser(kBins, bins - first); ++b) {
      store(output + first + b, taps.count[first + b] > 0 ? sums[b] : Real(0));
    }
  }
}

#if defined(__AVX512F__)
// Up to 32 columns fit into two registers, from which one instruction picks 16: no compiler finds that for itself.
template <typename T>
VD_HD void combine_columns(const float* row, int32_t width, const RoiBinTaps<float>& taps, int32_t most, int32_t bins,
                           T* output) {
  if (width > 2 * kRoiAlignLanes) return combine_columns<float, T>(row, width, taps, most, bins, output);
  const __m512 left = _mm512_loadu_ps(row), right = _mm512_loadu_ps(row + kRoiAlignLanes);
  for (int32_t first = 0; first < bins; first += kRoiAlignLanes) {
    __m512 sum = _mm512_setzero_ps();
    for (int32_t t = 0; t < most; ++t) {
      const __m512i index = _mm512_loadu_si512(taps.index + t * taps.tap_step + first);
      const __m512 weight = _mm512_loadu_ps(taps.weight + t * taps.tap_step + first);
      sum = _mm512_fmadd_ps(weight, _mm512_permutex2var_ps(left, index, right), sum);
    }
    const __m512i count = _mm512_loadu_si512(taps.count + first);
    sum = _mm512_maskz_mov_ps(_mm512_cmpgt_epi32_mask(count, _mm512_setzero_si512()), sum);
    if constexpr (sizeof(T) == sizeof(float)) {
      const int32_t here = lesser(kRoiAlignLanes, bins - first);
      _mm512_mask_storeu_ps(output + first, static_cast<__mmask16>((1u << here) - 1), sum);
    } else {
      float sums[kRoiAlignLanes];
      _mm512_storeu_ps(sums, sum);
      for (int32_t b = 0; b < lesser(kRoiAlignLanes, bins - first); ++b) store(output + first + b, sums[b]);
    }
  }
}
#endif

template <typename T>
VD_HD void sample_map(const MultiLevelRoiAlign& op, const RoiPlan& plan, const RoiTaps<Acc<T>>& taps, const T* map,
                      Acc<T>* row, T* output) {
  for (int32_t i = 0; i < op.output_height; ++i, output += op.output_width) {
    const int32_t count = taps.rows.count[i];
    if (count == 0) {
      for (int32_t j = 0; j < op.output_width; ++j) store(output + j, Acc<T>(0));
      continue;
    }
    const int64_t at = i * taps.rows.bin_step;
    combine_rows(map, plan.columns.size, taps.rows.weight + at, taps.rows.index + at, count, plan.width, row);
    combine_columns(row, plan.width, taps.columns, plan.column_taps, op.output_width, output);
  }
}

// An item: the channels and the image that it stands for. Blocks of all images take turns, so that threads have equal
// work also where one image has all the boxes.
struct Item {
  int64_t image, first_channel, channels;
};

VD_HD Item item_at(const MultiLevelRoiAlign& op, int64_t index) {
  Item item = {index % op.batch, index / op.batch * kRoiAlignChannels, kRoiAlignChannels};
  if (op.channels - item.first_channel < item.channels) item.channels = op.channels - item.first_channel;
  return item;
}

// A box on the first channel of an item: map starts at its first column.
template <typename T>
struct Patch {
  const RoiPlan* plan;
  RoiTaps<Acc<T>> taps;
  const T* map;
  int64_t cells;  // from channel to channel
};

template <typename T>
VD_HD Patch<T> patch_at(const RoiAlignJob& job, const Item& item, int64_t roi) {
  const MultiLevelRoiAlign& op = *job.op;
  Patch<T> patch = {job.plans + roi, {}, nullptr, 0};
  if (patch.plan->level < 0 || patch.plan->column_taps == 0) return patch;
  patch.taps = taps_of<Acc<T>>(op, *patch.plan, job.pool);
  patch.cells = int64_t(patch.plan->rows.size) * patch.plan->columns.size;
  patch.map = static_cast<const T*>(op.level[patch.plan->level].feature) + patch.plan->first_column +
              (item.image * op.channels + item.first_channel) * patch.cells;
  return patch;
}

// Asks memory for what sample_map will read: the short pieces of rows are nothing that the machine would foresee.
template <typename T>
VD_HD void prefetch(const Patch<T>& patch, int32_t output_height, int64_t channel) {
  constexpr int32_t kLine = 64 / sizeof(T);
  int32_t last = -1;
  for (int32_t i = 0; i < output_height; ++i) {
    for (int32_t t = 0; t < patch.taps.rows.count[i]; ++t) {
      const int32_t row = patch.taps.rows.index[i * patch.taps.rows.bin_step + t];
      if (row <= last) continue;
      last = row;
      const T* cells = patch.map + channel * patch.cells + int64_t(row) * patch.plan->columns.size;
      for (int32_t x = 0; x < patch.plan->width; x += kLine) __builtin_prefetch(cells + x);
      __builtin_prefetch(cells + patch.plan->width - 1);
    }
  }
}

template <typename T>
void forward(const RoiAlignJob& job, int64_t begin, int64_t end, void* scratch) {
  const MultiLevelRoiAlign& op = *job.op;
  const int64_t bins = int64_t(op.output_height) * op.output_width;
  for (int64_t i = begin; i < end; ++i) {
    const Item item = item_at(op, i);
    const int64_t last = job.first[item.image + 1];
    Patch<T> patch = {}, next = {};
    for (int64_t k = job.first[item.image]; k < last; ++k, patch = next) {
      if (k == job.first[item.image]) patch = patch_at<T>(job, item, job.order[k]);
      if (k + 1 < last) next = patch_at<T>(job, item, job.order[k + 1]);
      T* output = static_cast<T*>(op.output) + (job.order[k] * op.channels + item.first_channel) * bins;
      for (int64_t c = 0; c < item.channels; ++c, output += bins) {
        if (k + 1 < last && next.map != nullptr) prefetch(next, op.output_height, c);
        if (patch.map != nullptr) {
          const T* map = patch.map + c * patch.cells;
          sample_map(op, *patch.plan, patch.taps, map, static_cast<Acc<T>*>(scratch), output);
        } else {
          for (int64_t b = 0; b < bins; ++b) store(output + b, Acc<T>(0));
        }
      }
    }
  }
}

template <typename T>
VD_HD void backward_map(const MultiLevelRoiAlign& op, const RoiPlan& plan, const RoiTaps<T>& taps, T* map, T* row,
                        const T* grad_output) {
  for (int32_t i = 0; i < op.output_height; ++i, grad_output += op.output_width) {
    if (taps.rows.count[i] == 0) continue;
    for (int32_t x = 0; x < plan.width; ++x) row[x] = T(0);
    for (int32_t j = 0; j < op.output_width; ++j) {
      for (int32_t t = 0; t < taps.columns.count[j]; ++t) {
        const int64_t at = t * taps.columns.tap_step + j;
        row[taps.columns.index[at]] += taps.columns.weight[at] * grad_output[j];
      }
    }
    for (int32_t t = 0; t < taps.rows.count[i]; ++t) {
      const T weight = taps.rows.weight[i * taps.rows.bin_step + t];
      T* cells = map + int64_t(taps.rows.index[i * taps.rows.bin_step + t]) * plan.columns.size;
      for (int32_t x = 0; x < plan.width; ++x) cells[x] += weight * row[x];
    }
  }
}

template <typename T>
void backward(const RoiAlignJob& job, int64_t begin, int64_t end, void* scratch) {
  const MultiLevelRoiAlign& op = *job.op;
  const int64_t bins = int64_t(op.output_height) * op.output_width;
  for (int64_t i = begin; i < end; ++i) {
    const Item item = item_at(op, i);
    const int64_t first = item.image * op.channels + item.first_channel;
    for (int32_t l = 0; l < op.levels; ++l) {
      const int64_t cells = int64_t(op.level[l].height) * op.level[l].width;
      T* grad = static_cast<T*>(op.level[l].grad) + first * cells;
      for (int64_t x = 0; x < item.channels * cells; ++x) grad[x] = T(0);
    }
    for (int64_t k = job.first[item.image]; k < job.first[item.image + 1]; ++k) {
      const RoiPlan& plan = job.plans[job.order[k]];
      if (plan.level < 0 || plan.column_taps == 0) continue;
      const RoiTaps<T> taps = taps_of<T>(op, plan, job.pool);
      const int64_t cells = int64_t(plan.rows.size) * plan.columns.size;
      T* map = static_cast<T*>(op.level[plan.level].grad) + first * cells + plan.first_column;
      const T* grad_output =
          static_cast<const T*>(op.grad_output) + (job.order[k] * op.channels + item.first_channel) * bins;
      for (int64_t c = 0; c < item.channels; ++c) {
        backward_map(op, plan, taps, map + c * cells, static_cast<T*>(scratch), grad_output + c * bins);
      }
    }
  }
}

}  // namespace

extern const RoiAlignCpuKernels VD_ISA_TABLE;
const RoiAlignCpuKernels VD_ISA_TABLE = {
    {nullptr, forward<float>, forward<double>, forward<Half>, forward<BFloat16>},
    {nullptr, backward<float>, backward<double>, nullptr, nullptr},
};

}  // namespace visdeploy
