// Multiplies packed weights by rows that are found by address. Part of cpu_kernel.cc: compiled once per instruction
// set, local to that file.
#pragma once

#include "masked_conv/cpu_kernel.h"
#include "masked_conv/cpu_rows.h"

namespace visdeploy {
namespace {

constexpr int kPieces = 16;                          // taps whose rows are looked up at a time
constexpr int kPanelsAtOnce = 4;                     // that take turns on the same rows
constexpr int64_t kLineBytes = 64, kAskBytes = 128;  // of a row, asked of memory before its turn comes
constexpr int64_t kPanelBytes = 256 * 1024;          // of a panel at a time, to leave room in the L2 cache

template <typename T>
constexpr int64_t kPanelSums = int64_t(kMaskedConvChunk) * kPanelWidth<Acc<T>>;

template <typename T>
Panels<Acc<T>> panels_of(const MaskedConvFilter& filter) {
  return {filter.outputs, filter.depth * filter.taps};
}

// One panel of one group at work on a chunk of positions.
template <typename T>
struct PanelWork {
  const MaskedConvProduct& product;
  int64_t begin, end;         // positions
  int64_t channel, depth_at;  // first output channel; where the group's channels begin in a row
  int64_t outputs;            // channels that count
  int vectors;
  const Acc<T>* panel;
};

// Every row of sums begins as the bias.
template <typename T>
VD_HD void start_sums(const PanelWork<T>& work, Acc<T>* sums) {
  constexpr int64_t kWidth = kPanelWidth<Acc<T>>;
  for (int64_t o = 0; o < kWidth; ++o) {
    const bool biased = work.product.bias != nullptr && o < work.outputs;
    sums[o] = biased ? load(static_cast<const T*>(work.product.bias) + work.channel + o) : Acc<T>(0);
  }
  const int64_t rows = (work.end - work.begin + kTileRows - 1) / kTileRows * kTileRows;
  for (int64_t i = kWidth; i < rows * kWidth; ++i) sums[i] = sums[i - kWidth];
}

// A part of the depth: taps [tap, tap + taps) and of each the channels [channel, channel + channels).
struct DepthPart {
  int64_t tap, taps, channel, channels;
};

// Asks memory for the beginnings of the rows of a tile to come; the machine then sees by itself how they go on.
template <typename T>
VD_HD void prefetch_rows(const PanelWork<T>& work, const DepthPart& part, int64_t position) {
  const MaskedConvProduct& product = work.product;
  const char* base = static_cast<const char*>(product.rows) + (work.depth_at + part.channel) * int64_t(sizeof(Acc<T>));
  const int64_t stop = least(position + kTileRows, work.end);
  for (; position < stop; ++position) {
    const int64_t* entry = product.table + position * product.filter.taps + part.tap;
    for (int64_t t = 0; t < part.taps; ++t) {
      const char* row = base + entry[t] * product.channels * int64_t(sizeof(Acc<T>));
      const int64_t bytes = least(part.channels * int64_t(sizeof(Acc<T>)), kAskBytes);
      for (int64_t i = 0; i < bytes; i += kLineBytes) __builtin_prefetch(row + i);
    }
  }
}

// Adds one part of the depth to the sums of every position; `ask` where the rows may not be in a cache yet.
template <typename T>
VD_HD void multiply_part(const PanelWork<T>& work, const DepthPart& part, bool ask, Acc<T>* sums) {
  constexpr int64_t kWidth = kPanelWidth<Acc<T>>;
  const MaskedConvProduct& product = work.product;
  const MaskedConvFilter& filter = product.filter;
  const Acc<T>* base = static_cast<const Acc<T>*>(product.rows) + work.depth_at + part.channel;
  const Acc<T>* panel = work.panel + (part.tap * filter.depth + part.channel) * work.vectors * kLanes<Acc<T>>;
  const Acc<T>* rows[kPieces * kTileRows];
  for (int64_t position = work.begin; position < work.end; position += kTileRows, sums += kTileRows * kWidth) {
    for (int m = 0; m < kTileRows; ++m) {
      const int64_t* entry = product.table + (position + m) * filter.taps + part.tap;
      const bool there = position + m < work.end;
      for (int64_t t = 0; t < part.taps; ++t)
        rows[t * kTileRows + m] = base + (there ? entry[t] : 0) * product.channels;
    }
    if (ask) prefetch_rows(work, part, position + kTileRows);
    multiply_panel(work.vectors, rows, part.taps, part.channels, panel, sums, kWidth);
  }
}

// Part by part of the depth, such that the part of a panel and the pixels that the positions read through few taps stay
// in the L2 cache from panel to panel.
template <typename T>
VD_HD void multiply_chunk(const PanelWork<T>* works, int64_t count, Acc<T>* sums) {
  constexpr int64_t kDepth = kPanelBytes / static_cast<int64_t>(sizeof(Acc<T>)) / kPanelWidth<Acc<T>>;
  const MaskedConvFilter& filter = works[0].product.filter;
  const int64_t taps = filter.depth >= kDepth ? 1 : least(kPieces, kDepth / filter.depth);
  for (int64_t tap = 0; tap < filter.taps; tap += taps) {
    for (int64_t channel = 0; channel < filter.depth; channel += kDepth) {
      const DepthPart part = {tap, least(taps, filter.taps - tap), channel, least(kDepth, filter.depth - channel)};
      for (int64_t i = 0; i < count; ++i) multiply_part(works[i], part, i == 0, sums + i * kPanelSums<T>);
    }
  }
}

template <typename T>
VD_HD void multiply_depthwise(const PanelWork<T>& work, Acc<T>* sums) {
  const MaskedConvProduct& product = work.product;
  const Acc<T>* base = static_cast<const Acc<T>*>(product.rows) + work.channel;
  for (int64_t i = work.begin; i < work.end; ++i, sums += kPanelWidth<Acc<T>>) {
    const int64_t* entry = product.table + i * product.filter.taps;
    for (int v = 0; v < work.vectors; ++v) {
      const int64_t at = v * kLanes<Acc<T>>;
      Vector<Acc<T>> sum = load_vector(sums + at);
      for (int64_t tap = 0; tap < product.filter.taps; ++tap) {
        sum += load_vector(base + entry[tap] * product.channels + at) *
               load_vector(work.panel + tap * work.vectors * kLanes<Acc<T>> + at);
      }
      store_vector(sums + at, sum);
    }
  }
}

// Zeros in the planes of all outputs, from the first position of the chunk to the first of the next one.
template <typename T>
VD_HD void write_zeros(const PanelWork<T>& work) {
  const MaskedConvProduct& product = work.product;
  const int64_t all = product.filter.groups * product.filter.outputs, plane = product.plane;
  const int64_t to = work.end == product.positions ? product.batch * plane : product.where[work.end];
  int64_t from = work.begin == 0 ? 0 : product.where[work.begin];
  if (to - from == work.end - work.begin) return;  // all are active
  while (from < to) {
    const int64_t n = from / plane, stop = least(to, (n + 1) * plane);
    T* output = static_cast<T*>(product.output) + (n * all + work.channel) * plane + from % plane;
    for (int64_t o = 0; o < work.outputs; ++o, output += plane)
      __builtin_memset(output, 0, static_cast<size_t>(stop - from) * sizeof(T));
    from = stop;
  }
}

// The sums at their places: few outputs at a time, because their planes are pages apart, and by squares where positions
// are neighbours.
template <typename T>
VD_HD void write_sums(const PanelWork<T>& work, const int64_t* offsets, const Acc<T>* sums) {
  constexpr int64_t kWidth = kPanelWidth<Acc<T>>;
  constexpr int kBlock = kLanes<Acc<T>>;
  const int64_t plane = work.product.plane, count = work.end - work.begin;
  for (int64_t first = 0; first < work.outputs; first += kBlock) {
    const int64_t outputs = least(kBlock, work.outputs - first);
    T* output = static_cast<T*>(work.product.output) + (work.channel + first) * plane;
    int64_t i = 0;
    while (i < count) {
      const Acc<T>* row = sums + i * kWidth + first;
      const bool neighbours = i + kBlock <= count && offsets[i + kBlock - 1] - offsets[i] == kBlock - 1;
      if (neighbours && outputs == kBlock) {
        scatter_square(row, kWidth, plane, output + offsets[i]);
        i += kBlock;
      } else {
        for (int64_t o = 0; o < outputs; ++o) store(output + o * plane + offsets[i], row[o]);
        ++i;
      }
    }
  }
}

template <typename T>
VD_HD PanelWork<T> panel_work(const MaskedConvProduct& product, int64_t begin, int64_t end, int64_t index) {
  const MaskedConvFilter& filter = product.filter;
  const Panels<Acc<T>> shape = panels_of<T>(filter);
  const int64_t group = index / shape.count(), panel = index % shape.count(), column = panel * kPanelWidth<Acc<T>>;
  const int64_t outputs = least(kPanelWidth<Acc<T>>, filter.outputs - column);
  const Acc<T>* packed = static_cast<const Acc<T>*>(product.packed) + group * shape.size() + shape.start(panel);
  return {product, begin, end, group * filter.outputs + column, group * filter.depth, outputs, shape.vectors(panel),
          packed};
}

template <typename T>
void multiply(const MaskedConvProduct& product, int64_t begin, int64_t end, int64_t first, int64_t last) {
  alignas(kTileAlignment) Acc<T> sums[kPanelsAtOnce * kPanelSums<T>];
  const int64_t all = product.filter.groups * product.filter.outputs;
  int64_t offsets[kMaskedConvChunk];
  for (int64_t i = begin; i < end; ++i) {
    const int64_t n = product.where[i] / product.plane;
    offsets[i - begin] = n * all * product.plane + product.where[i] % product.plane;
  }
  for (; first < last; first += kPanelsAtOnce) {
    const int64_t count = least(kPanelsAtOnce, last - first);
    const auto work = [&](int64_t i) { return panel_work<T>(product, begin, end, first + least(i, count - 1)); };
    const PanelWork<T> works[kPanelsAtOnce] = {work(0), work(1), work(2), work(3)};
    for (int64_t i = 0; i < count; ++i) start_sums(works[i], sums + i * kPanelSums<T>);
    if (product.filter.depthwise) {
      for (int64_t i = 0; i < count; ++i) multiply_depthwise(works[i], sums + i * kPanelSums<T>);
    } else {
      multiply_chunk(works, count, sums);
    }
    for (int64_t i = 0; i < count; ++i) {
      write_zeros(works[i]);
      write_sums(works[i], offsets, sums + i * kPanelSums<T>);
    }
  }
}

}  // namespace
}  // namespace visdeploy
