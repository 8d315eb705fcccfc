// CPU kernels of masked convolution, one table per instruction set. All of them work on lists of positions: what is
// not active is never touched, except for the zeros that are its result.
#pragma once

#include "visdeploy/masked_conv.h"

namespace visdeploy {

// Positions that share a pass over the weights; a multiple of the rows of a tile.
constexpr int kMaskedConvChunk = 192;

// The weights [groups * outputs, depth, taps] of a product; outputs and depth are those of one group. A depth-wise
// filter is one group whose output o sees input channel o alone.
struct MaskedConvFilter {
  int64_t groups = 1, outputs = 0, depth = 0, taps = 0;
  bool depthwise = false;
};

// output[n, :, p] = bias + sum over taps of weights * rows[table[i][tap]] for listed positions, 0 for all others.
struct MaskedConvProduct {
  MaskedConvFilter filter;
  int64_t batch = 0, plane = 0;  // of the output [batch, groups * outputs, plane]
  int64_t positions = 0;
  const int64_t* where = nullptr;  // [positions], n * plane + p, ascending
  const int64_t* table = nullptr;  // [positions, taps], which row each tap reads; row 0 is zeros
  const void* rows = nullptr;      // [any, channels] of the accumulator's type, and one panel's width more at the end
  int64_t channels = 0;
  const void* packed = nullptr;
  const void* bias = nullptr;
  void* output = nullptr;
};

// grad_weight and grad_bias from the active positions.
struct MaskedConvWeightSums {
  const MaskedConv* op = nullptr;
  int64_t positions = 0;
  const int64_t* source = nullptr;  // [positions, taps], where channel 0 of the pixel lies in input; -1 in the padding
  const void* grads = nullptr;      // made by pack_grads
};

// Indexed by vd_dtype. Ranges are [begin, end) of what run in parallel.
struct MaskedConvCpuKernels {
  // Copies the pixels at the given offsets of channel 0, channels next to each other, to rows 1 + i.
  void (*gather_rows[5])(const void* planes, int64_t plane, int64_t channels, const int64_t* offsets, int64_t begin,
                         int64_t end, void* rows);
  // Packed weights: how many panels each group has, how many elements they take, and panels [begin, end) of all groups.
  int64_t (*panels[5])(const MaskedConvFilter& filter);
  int64_t (*packed_size[5])(const MaskedConvFilter& filter);
  void (*pack[5])(const MaskedConvFilter& filter, const void* weight, int64_t begin, int64_t end, void* packed);
  // Positions [begin, end), at most kMaskedConvChunk, by panels [first, last) of all groups; and the zeros from begin's
  // position (from the start for the first) up to end's (to the end for the last).
  void (*multiply[5])(const MaskedConvProduct& product, int64_t begin, int64_t end, int64_t first, int64_t last);
  // [group, outputs, channels, taps] to [group, channels, outputs, taps], groups [begin, end).
  void (*swap_channels[5])(const MaskedConv& op, int64_t begin, int64_t end, void* swapped);
  // Output gradients of active positions as panels of a matrix [positions, outputs of one group]; panels [begin, end).
  void (*pack_grads[5])(const MaskedConv& op, const int64_t* offsets, int64_t positions, int64_t begin, int64_t end,
                        void* grads);
  // Gradients of blocks [begin, end) of the weights, of which there are groups * taps * weight_blocks.
  void (*sum_weights[5])(const MaskedConvWeightSums& sums, int64_t begin, int64_t end);
  // Gradients of the bias, panels [begin, end).
  void (*sum_bias[5])(const MaskedConvWeightSums& sums, int64_t begin, int64_t end);
  int64_t (*weight_blocks)(const MaskedConv& op);
  int64_t row_padding;  // elements that may be read beyond the last row
};

extern const MaskedConvCpuKernels masked_conv_baseline;
extern const MaskedConvCpuKernels masked_conv_avx2;
extern const MaskedConvCpuKernels masked_conv_avx512;

// The table for cpu_isa().
const MaskedConvCpuKernels& masked_conv_cpu();

}  // namespace visdeploy
