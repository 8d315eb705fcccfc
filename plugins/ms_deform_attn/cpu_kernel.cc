// Compiled once per instruction set, with VD_ISA_TABLE naming the table to define. Nothing here may use an inline
// function of the standard library: the linker could keep the copy compiled for another machine.

#include "ms_deform_attn/cpu_kernel.h"

namespace visdeploy {
namespace {

// The neighbours that one head reads for one query: rows of channels and their weights. A neighbour outside the map
// reads a row of zeros, so that the sums need no branch and infinite values elsewhere cannot leak in.
template <typename T>
struct Rows {
  const T** address;
  Acc<T>* weight;
};

template <typename T>
VD_HD void find_rows(const MsDeformAttn& op, int64_t n, int64_t position, int64_t head, const T* zeros, Rows<T> rows) {
  const int64_t stride = op.heads * op.channels;
  const int64_t count = op.levels * op.points;
  const T* location = static_cast<const T*>(op.locations) + (position * op.heads + head) * count * 2;
  const T* weight = static_cast<const T*>(op.weights) + (position * op.heads + head) * count;
  const T* map = static_cast<const T*>(op.value) + n * op.tokens * stride + head * op.channels;
  for (int64_t l = 0; l < op.levels; ++l) {
    const Level level = op.geometry[l];
    const T* origin = map + level.start * stride;
    for (int64_t p = 0; p < op.points; ++p, location += 2, ++weight) {
      const Neighbours<Acc<T>> found = locate(load(location), load(location + 1), level);
      const Acc<T> attention = load(weight);
      for (int k = 0; k < 4; ++k) {
        const int32_t index = found.index[k];
        const T* address = index < 0 ? zeros : origin + index * stride;
        *rows.address++ = address;
        *rows.weight++ = index < 0 ? Acc<T>(0) : attention * neighbour_weight(found, k);
        __builtin_prefetch(address);
      }
    }
  }
}

// kChannels channels of one head, summed over all rows in registers; two sums each, to keep two additions in flight.
template <int kChannels, typename T>
VD_HD void sum_rows(const Rows<T>& rows, int64_t count, int64_t first, T* output) {
  Acc<T> even[kChannels] = {}, odd[kChannels] = {};
  for (int64_t i = 0; i < count; i += 2) {
    add_weighted<kChannels>(rows.address[i] + first, rows.weight[i], even);
    add_weighted<kChannels>(rows.address[i + 1] + first, rows.weight[i + 1], odd);
  }
  for (int c = 0; c < kChannels; ++c) store(output + first + c, even[c] + odd[c]);
}

template <typename T>
VD_HD void sum_head(const Rows<T>& rows, int64_t count, int64_t channels, T* output) {
  int64_t first = 0;
  for (; channels - first >= 32; first += 32) sum_rows<32>(rows, count, first, output);
  for (; channels - first >= 16; first += 16) sum_rows<16>(rows, count, first, output);
  for (; channels - first >= 8; first += 8) sum_rows<8>(rows, count, first, output);
  for (; channels - first >= 4; first += 4) sum_rows<4>(rows, count, first, output);
  for (; channels > first; ++first) sum_rows<1>(rows, count, first, output);
}

template <typename T>
void forward(const MsDeformAttn& op, int64_t begin, int64_t end, void* scratch) {
  const int64_t count = 4 * op.levels * op.points;
  // Two sets of rows: those of the next head are found, and asked of memory, while this head is summed.
  Rows<T> now, next;
  now.address = static_cast<const T**>(scratch);
  next.address = now.address + count;
  now.weight = reinterpret_cast<Acc<T>*>(next.address + count);
  next.weight = now.weight + count;
  T* zeros = reinterpret_cast<T*>(next.weight + count);
  for (int64_t c = 0; c < op.channels; ++c) store(zeros + c, Acc<T>(0));

  const int64_t heads = (end - begin) * op.heads;
  for (int64_t i = 0; i <= heads; ++i) {
    const int64_t position = begin + i / op.heads;
    if (i < heads) find_rows(op, position / op.queries, position, i % op.heads, zeros, next);
    if (i > 0) sum_head(now, count, op.channels, static_cast<T*>(op.output) + (begin * op.heads + i - 1) * op.channels);
    const Rows<T> swapped = now;
    now = next;
    next = swapped;
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

extern const MsDeformAttnCpuKernels VD_ISA_TABLE;
const MsDeformAttnCpuKernels VD_ISA_TABLE = {
    {nullptr, forward<float>, forward<double>, forward<Half>, forward<BFloat16>},
    {nullptr, backward<float>, backward<double>, nullptr, nullptr},
};

}  // namespace visdeploy
