// CPU kernels of deformable convolution, one table per instruction set.
//
// A deformable convolution is a matrix product of sampled columns and weights. The input is first laid out with its
// channels last, as numbers of the accumulator type, so that a sample of all channels is four rows added up; weights
// are packed into panels. Then each block of output positions is sampled and multiplied, a few taps at a time.
#pragma once

#include "visdeploy/deform_conv.h"

namespace visdeploy {

// How the work of a forward call is shared out, and the memory that it needs in bytes.
struct DeformConvPlan {
  int64_t strips, map_bytes;  // strips of pixels of all images, laid out with channels last
  int64_t block, blocks;      // output positions per block, and blocks per image
  int64_t taps;               // sampled at a time
  int64_t scratch_bytes;      // of each thread
};

// Panels of packed weights, and the bytes of all of them.
struct DeformConvPacking {
  int64_t panels, bytes;
};

// Work is done for units [begin, end) of what packing or plan counts.
struct DeformConvForward {
  DeformConvPacking (*packing)(const DeformConv& op);  // needs only channels, outputs, groups and kernel
  DeformConvPlan (*plan)(const DeformConv& op);
  void (*pack)(const DeformConv& op, int64_t begin, int64_t end, void* packed);
  void (*lay_out)(const DeformConv& op, int64_t begin, int64_t end, void* maps);
  // Blocks of all images, once weights and maps are there.
  void (*convolve)(const DeformConv& op, const DeformConvPlan& plan, const void* packed, const void* maps,
                   int64_t begin, int64_t end, void* scratch);
};

// Gradients are computed image by image, and there chunk by chunk of output positions.
struct DeformConvBackwardPlan {
  int64_t panels, packed_bytes;      // weights packed for the gradient of the columns
  int64_t strips, map_bytes;         // one image with channels last; its gradient takes the same
  int64_t chunk, chunks;             // output positions per chunk, and chunks per image
  int64_t block, column_bytes;       // positions per block; columns of a chunk, whose gradient takes the same
  int64_t slices;                    // of channels
  int64_t column_panels, sum_bytes;  // the weights' gradient, by panel of columns
  int64_t scratch_bytes;             // of each thread
};

// The memory of a backward call; grad_map of an image and sums of the call are zero on entry.
struct DeformConvMemory {
  void *packed, *map, *grad_map, *columns, *grad_columns, *sums;
};

// Positions [first, last) of image n: one chunk.
struct DeformConvChunk {
  int64_t n, first, last;
};

struct DeformConvBackward {
  DeformConvBackwardPlan (*plan)(const DeformConv& op);
  void (*pack)(const DeformConv& op, int64_t begin, int64_t end, void* packed);
  // Strips of pixels of image n.
  void (*lay_out)(const DeformConv& op, int64_t n, int64_t begin, int64_t end, void* map);
  void (*lay_back)(const DeformConv& op, int64_t n, int64_t begin, int64_t end, const void* grad_map);
  // Blocks of the chunk: columns, their gradient, and from both those of offset and mask.
  void (*columns)(const DeformConv& op, const DeformConvBackwardPlan& plan, const DeformConvMemory& memory,
                  const DeformConvChunk& chunk, int64_t begin, int64_t end, void* scratch);
  // Slices of channels: adds the chunk to grad_map.
  void (*scatter)(const DeformConv& op, const DeformConvBackwardPlan& plan, const DeformConvMemory& memory,
                  const DeformConvChunk& chunk, int64_t begin, int64_t end, void* scratch);
  // Panels of columns: adds the chunk to sums.
  void (*weigh)(const DeformConv& op, const DeformConvBackwardPlan& plan, const DeformConvMemory& memory,
                const DeformConvChunk& chunk, int64_t begin, int64_t end, void* scratch);
  // Outputs: writes the gradients of weight and bias.
  void (*finish)(const DeformConv& op, const DeformConvMemory& memory, int64_t begin, int64_t end);
};

struct DeformConvCpuKernels {
  DeformConvForward forward[5];  // indexed by vd_dtype
  DeformConvBackward backward[5];
};

extern const DeformConvCpuKernels deform_conv_baseline;
extern const DeformConvCpuKernels deform_conv_avx2;
extern const DeformConvCpuKernels deform_conv_avx512;

// The table for cpu_isa().
const DeformConvCpuKernels& deform_conv_cpu();

}  // namespace visdeploy
