// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "ms_deform_attn/cpu_kernel.h"

#include "ms_deform_attn/cpu_points.h"
#include "ms_deform_attn/cpu_sum.h"

namespace visdeploy {
namespace {

// One line of a packed map: a column of zeros, then a line of a level, or zeros above and below it (from is null).
template <typename T>
VD_HD void pack_line(const T* from, int64_t width, int64_t stride, int64_t channels, Acc<T>* to) {
  for (int64_t c = 0; c < channels; ++c) to[c] = Acc<T>(0);
  for (int64_t x = 0; x < width; ++x) {
    to += channels;
    if (from == nullptr) {
      for (int64_t c = 0; c < channels; ++c) to[c] = Acc<T>(0);
    } else {
      for (int64_t c = 0; c < channels; ++c) to[c] = load(from + x * stride + c);
    }
  }
}

template <typename T>
void pack(const MsDeformAttn& op, const PackedMaps& maps, int64_t begin, int64_t end) {
  const int64_t channels = op.channels, stride = op.heads * channels;
  for (int64_t i = begin; i < end; ++i) {
    // The same line of all maps in turn: they lie beside each other in value.
    const int64_t map = maps.first + i % maps.count;
    const int64_t n = map / op.heads, head = map % op.heads;
    const T* value = static_cast<const T*>(op.value) + n * op.tokens * stride + head * channels;
    Acc<T>* to = static_cast<Acc<T>*>(maps.data) + i % maps.count * maps.tokens * channels;
    int64_t line = i / maps.count, l = 0;
    for (; line >= op.geometry[l].height + int64_t(2); ++l) {
      const int64_t lines = op.geometry[l].height + int64_t(2);
      line -= lines;
      to += lines * (op.geometry[l].width + int64_t(1)) * channels;
    }
    const Level level = op.geometry[l];
    const int64_t width = level.width;
    const bool border = line == 0 || line > level.height;
    to += line * (width + 1) * channels;
    pack_line(border ? nullptr : value + (level.start + (line - 1) * width) * stride, width, stride, channels, to);
    // The last line's right border, and one more: no level follows whose border would serve.
    const bool last = l == op.levels - 1 && line > level.height;
    if (last) pack_line<T>(nullptr, 1, stride, channels, to + (width + 1) * channels);
  }
}

// kChannels channels of one head, summed over all points; one sum per neighbour, to keep four additions in flight.
template <int kChannels, typename Real, typename T>
VD_HD void sum_packed(const Real* map, const int32_t* stride, const Points<Real>& points, int64_t first, int64_t count,
                      int64_t channels, T* output) {
  Channels<Real, kChannels> sums[4] = {};
  for (int64_t i = first; i < first + count; ++i) {
    const Real* top = map + points.token[0][i];
    const Real* bottom = top + stride[i] * channels;
    sums[0].add_weighted(top, points.weight[0][i]);
    sums[1].add_weighted(top + channels, points.weight[1][i]);
    sums[2].add_weighted(bottom, points.weight[2][i]);
    sums[3].add_weighted(bottom + channels, points.weight[3][i]);
  }
  sums[0].add(sums[1]);
  sums[2].add(sums[3]);
  sums[0].add(sums[2]);
  sums[0].store_to(output);
}

template <typename T>
VD_HD void ask_for(const T* address, int64_t count) {
  const char* byte = reinterpret_cast<const char*>(address);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  for (int64_t b = 0; b < bytes; b += kCacheLine) __builtin_prefetch(byte + b);
}

template <typename T, typename P, bool kFused>
void packed(const MsDeformAttn& op, const PackedMaps& maps, const void* point_levels, int64_t begin, int64_t end,
            void* scratch) {
  using Real = Acc<T>;
  const auto& levels = *static_cast<const PointLevels<Real>*>(point_levels);
  const int64_t count = op.levels * op.points, channels = op.channels, batch = batch_rows(op);
  const Points<Real> points = points_in<Real>(scratch, op);
  int64_t rows;
  for (int64_t i = begin; i < end; i += rows) {
    // Rows of one map, which are as many as there are heads apart.
    const int64_t part = i / op.queries, query = i % op.queries, map = maps.first + part;
    rows = op.queries - query < batch ? op.queries - query : batch;
    rows = end - i < rows ? end - i : rows;
    const int64_t first = (map / op.heads * op.queries + query) * op.heads + map % op.heads;
    const Real* data = static_cast<const Real*>(maps.data) + part * maps.tokens * channels;
    read_rows<P, kFused>(op, levels, first, op.heads, rows, points);
    find_packed(levels, static_cast<int32_t>(channels), padded_points(op), points);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = first + r * op.heads, ahead = row + batch * op.heads;
      ask_for(static_cast<const P*>(op.locations) + ahead * count * 2, count * 2);
      ask_for(static_cast<const P*>(op.weights) + ahead * count, count);
      T* output = static_cast<T*>(op.output) + row * channels;
      for_channels(channels, [&](auto width, int64_t c) {
        sum_packed<width.value>(data + c, levels.stride, points, r * count, count, channels, output + c);
      });
    }
  }
}

template <int kChannels, typename Real, typename T>
VD_HD void sum_direct(const T* map, int64_t stride, const T* zeros, const Points<Real>& points, int64_t first,
                      int64_t count, T* output) {
  Channels<Real, kChannels> sums[4] = {};
  for (int64_t i = first; i < first + count; ++i) {
    for (int k = 0; k < 4; ++k) {
      const int64_t token = points.token[k][i];
      sums[k].add_weighted(token < 0 ? zeros : map + token * stride, points.weight[k][i]);
    }
  }
  sums[0].add(sums[1]);
  sums[2].add(sums[3]);
  sums[0].add(sums[2]);
  sums[0].store_to(output);
}

// Asks memory for what the next row will read.
template <typename T, typename Real>
VD_HD void ask_for_neighbours(const T* map, int64_t stride, const Points<Real>& points, int64_t first, int64_t count,
                              int64_t channels) {
  for (int k = 0; k < 4; ++k) {
    for (int64_t i = first; i < first + count; ++i) {
      const int64_t token = points.token[k][i];
      if (token >= 0) ask_for(map + token * stride, channels);
    }
  }
}

template <typename T, typename P, bool kFused>
void direct(const MsDeformAttn& op, const void* point_levels, int64_t begin, int64_t end, void* scratch) {
  using Real = Acc<T>;
  const auto& levels = *static_cast<const PointLevels<Real>*>(point_levels);
  const int64_t count = op.levels * op.points, channels = op.channels, batch = batch_rows(op);
  const int64_t stride = op.heads * channels;
  const Points<Real> points = points_in<Real>(scratch, op);
  T* zeros = static_cast<T*>(points.rest);
  for (int64_t c = 0; c < channels; ++c) store(zeros + c, Real(0));
  const auto map_of = [&](int64_t row) {
    return static_cast<const T*>(op.value) + row / op.heads / op.queries * op.tokens * stride +
           row % op.heads * channels;
  };
  for (int64_t first = begin; first < end; first += batch) {
    const int64_t rows = end - first < batch ? end - first : batch;
    read_rows<P, kFused>(op, levels, first, 1, rows, points);
    find_direct(levels, padded_points(op), points);
    const T* map = map_of(first);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = first + r;
      const T* next = r + 1 < rows ? map_of(row + 1) : map;
      if (r + 1 < rows) ask_for_neighbours(next, stride, points, (r + 1) * count, count, channels);
      T* output = static_cast<T*>(op.output) + row * channels;
      for_channels(channels, [&](auto width, int64_t c) {
        sum_direct<width.value>(map + c, stride, zeros + c, points, r * count, count, output + c);
      });
      map = next;
    }
  }
}

// Sum of products over channels in eight lanes, which the compiler may keep in one register.
template <typename T>
VD_HD T dot(const T* a, const T* b, int64_t count) {
  T lanes[8] = {};
  int64_t c = 0;
  for (; c + 8 <= count; c += 8) {
    for (int j = 0; j < 8; ++j) lanes[j] += a[c + j] * b[c + j];
  }
  T sum = T(0);
  for (; c < count; ++c) sum += a[c] * b[c];
  return sum + ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// All queries' gradients through one head's map of one sample.
template <typename T>
VD_HD void backward_map(const MsDeformAttn& op, int64_t n, int64_t head) {
  const int64_t stride = op.heads * op.channels;
  const int64_t map = n * op.tokens * stride + head * op.channels;
  const T* value = static_cast<const T*>(op.value) + map;
  T* grad_value = static_cast<T*>(op.grad_value) + map;
  for (int64_t q = 0; q < op.queries; ++q) {
    const int64_t row = (n * op.queries + q) * op.heads + head;
    const T* grad_output = static_cast<const T*>(op.grad_output) + row * op.channels;
    for (int64_t i = 0; i < op.levels * op.points; ++i) {
      const int64_t point = row * op.levels * op.points + i;
      const Level level = op.geometry[i / op.points];
      const T* location = static_cast<const T*>(op.locations) + 2 * point;
      const T weight = static_cast<const T*>(op.weights)[point];
      const Neighbours<T> found = locate(location[0], location[1], level);
      T dots[4] = {};
      for (int k = 0; k < 4; ++k) {
        if (found.index[k] < 0) continue;
        const int64_t offset = (level.start + int64_t(found.index[k])) * stride;
        const T share = weight * neighbour_weight(found, k);
        dots[k] = dot(grad_output, value + offset, op.channels);
        for (int64_t c = 0; c < op.channels; ++c) grad_value[offset + c] += share * grad_output[c];
      }
      const PointGradients<T> grad = point_gradients(found, dots, weight, level);
      static_cast<T*>(op.grad_weights)[point] = grad.weight;
      static_cast<T*>(op.grad_locations)[2 * point] = grad.location_x;
      static_cast<T*>(op.grad_locations)[2 * point + 1] = grad.location_y;
    }
  }
}

template <typename T>
void backward(const MsDeformAttn& op, int64_t begin, int64_t end) {
  for (int64_t map = begin; map < end; ++map) backward_map<T>(op, map / op.heads, map % op.heads);
}

}  // namespace

#define VD_ALL_TYPES(kernel, fused)   \
  {nullptr,                           \
   kernel<float, float, fused>,       \
   kernel<double, double, fused>,     \
   kernel<Half, Half, fused>,         \
   kernel<BFloat16, BFloat16, fused>, \
   kernel<Half, float, fused>,        \
   kernel<BFloat16, float, fused>}

extern const MsDeformAttnCpuKernels VD_ISA_TABLE;
const MsDeformAttnCpuKernels VD_ISA_TABLE = {
    {nullptr, pack<float>, pack<double>, pack<Half>, pack<BFloat16>, pack<Half>, pack<BFloat16>},
    {VD_ALL_TYPES(packed, false), VD_ALL_TYPES(packed, true)},
    {VD_ALL_TYPES(direct, false), VD_ALL_TYPES(direct, true)},
    {nullptr, backward<float>, backward<double>},
};

}  // namespace visdeploy
