/* The C interface of the operator library: what PyTorch's binding, other languages and the tests call.
 *
 * Every function returns 0 when it did its work. Otherwise nothing was written and vd_last_error() says, for the
 * calling thread, which op and tensor were wrong, what was seen and what was expected. No function throws. */
#ifndef VISDEPLOY_C_API_H
#define VISDEPLOY_C_API_H

#include <stddef.h>
#include <stdint.h>

#define VD_ABI_VERSION 3
#define VD_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  VD_FLOAT32 = 1,
  VD_FLOAT64 = 2,
  VD_FLOAT16 = 3,
  VD_BFLOAT16 = 4,
  VD_INT64 = 5,
  VD_INT32 = 6,
  VD_BOOL = 7, /* one byte, 0 or 1 */
  VD_OTHER = 0 /* a type that no op takes; lets bindings pass any tensor and get the message */
} vd_dtype;

/* A tensor of the caller's. strides are in elements; NULL says contiguous. */
typedef struct {
  void* data;
  const int64_t* shape;
  const int64_t* strides;
  int32_t rank;
  int32_t dtype;
} vd_tensor;

VD_EXPORT int vd_abi_version(void);
VD_EXPORT const char* vd_last_error(void);

/* The instruction set that the CPU kernels use on this machine: "avx512", "avx2" or "baseline"; NULL on error. */
VD_EXPORT const char* vd_cpu_isa(void);

/* The compute capabilities that CUDA kernels were built for, as "80 86 ..."; empty when built without CUDA. */
VD_EXPORT const char* vd_cuda_architectures(void);

/* Makes a CUDA device the calling thread's, for the functions named ..._cuda below. Call it before them where there is
 * more than one device. Fails when this library's kernels cannot run on that device. */
VD_EXPORT int vd_cuda_set_device(int device);

/* Multi-scale deformable attention on the CPU; shapes in visdeploy/ms_deform_attn.h and plugins/ms_deform_attn.
 * spatial_shapes is [levels, 2] (height, width), level_start_index [levels]; both int64 or both int32.
 * sampling_locations and attention_weights have value's dtype, or are float32 where that is a half-precision one.
 * threads >= 1. */
VD_EXPORT int vd_ms_deform_attn_forward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                        const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                        const vd_tensor* attention_weights, const vd_tensor* output, int threads);

/* The fused form: it finds sampling locations and attention weights itself. reference_points is [batch, queries,
 * levels, 2] (x, y) or [..., 4] (x, y, width, height), sampling_offsets like sampling_locations, attention_logits like
 * attention_weights: a softmax over levels and points makes weights of them. reference_points has the dtype of
 * sampling_offsets, or is float32 where that is a half-precision one. */
VD_EXPORT int vd_ms_deform_attn_fused_forward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                              const vd_tensor* level_start_index, const vd_tensor* reference_points,
                                              const vd_tensor* sampling_offsets, const vd_tensor* attention_logits,
                                              const vd_tensor* output, int threads);

/* Gradients of the plain form, float32 and float64. The three results are overwritten and are the same for any thread
 * count. */
VD_EXPORT int vd_ms_deform_attn_backward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                         const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                         const vd_tensor* attention_weights, const vd_tensor* grad_output,
                                         const vd_tensor* grad_value, const vd_tensor* grad_sampling_locations,
                                         const vd_tensor* grad_attention_weights, int threads);

/* The same on a CUDA device: all tensors are in device memory, spatial_shapes and level_start_index too, and stream is
 * a cudaStream_t. The two index tensors are read by the kernel alone: a level that does not lie within value's tokens
 * contributes nothing instead of being an error. Fails with a message when the library was built without CUDA. */
VD_EXPORT int vd_ms_deform_attn_forward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                             const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                             const vd_tensor* attention_weights, const vd_tensor* output, void* stream);
VD_EXPORT int vd_ms_deform_attn_fused_forward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                                   const vd_tensor* level_start_index,
                                                   const vd_tensor* reference_points, const vd_tensor* sampling_offsets,
                                                   const vd_tensor* attention_logits, const vd_tensor* output,
                                                   void* stream);
VD_EXPORT int vd_ms_deform_attn_backward_cuda(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                              const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                              const vd_tensor* attention_weights, const vd_tensor* grad_output,
                                              const vd_tensor* grad_value, const vd_tensor* grad_sampling_locations,
                                              const vd_tensor* grad_attention_weights, void* stream);

/* Parameters of deformable convolution, those of the ONNX op DeformConv. */
typedef struct {
  int64_t stride[2];     /* y, x */
  int64_t padding[4];    /* top, left, bottom, right */
  int64_t dilation[2];   /* y, x */
  int64_t groups;        /* of the weights; divides channels and outputs */
  int64_t offset_groups; /* channel c takes the offsets and masks of group c / (channels / offset_groups) */
} vd_deform_conv_params;

/* Deformable convolution on the CPU; shapes in visdeploy/deform_conv.h and plugins/deform_conv. mask and bias may be
 * NULL. threads >= 1. */
VD_EXPORT int vd_deform_conv_forward(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                     const vd_tensor* mask, const vd_tensor* bias, const vd_tensor* output,
                                     const vd_deform_conv_params* params, int threads);

/* Its gradients, float32 and float64. The results are overwritten and are the same for any thread count. grad_mask is
 * NULL when mask is; grad_bias may be NULL. */
VD_EXPORT int vd_deform_conv_backward(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                      const vd_tensor* mask, const vd_tensor* grad_output, const vd_tensor* grad_input,
                                      const vd_tensor* grad_offset, const vd_tensor* grad_weight,
                                      const vd_tensor* grad_mask, const vd_tensor* grad_bias,
                                      const vd_deform_conv_params* params, int threads);

/* The same on a CUDA device: tensors are in device memory, stream is a cudaStream_t. */
VD_EXPORT int vd_deform_conv_forward_cuda(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                          const vd_tensor* mask, const vd_tensor* bias, const vd_tensor* output,
                                          const vd_deform_conv_params* params, void* stream);
VD_EXPORT int vd_deform_conv_backward_cuda(const vd_tensor* input, const vd_tensor* offset, const vd_tensor* weight,
                                           const vd_tensor* mask, const vd_tensor* grad_output,
                                           const vd_tensor* grad_input, const vd_tensor* grad_offset,
                                           const vd_tensor* grad_weight, const vd_tensor* grad_mask,
                                           const vd_tensor* grad_bias, const vd_deform_conv_params* params,
                                           void* stream);
/* Parameters of masked convolution; pairs are (vertical, horizontal), padding is the same on both sides. */
typedef struct {
  int64_t stride[2];
  int64_t padding[2];
  int64_t dilation[2];
  int64_t groups;
} vd_masked_conv_params;

/* Masked convolution on the CPU; shapes in visdeploy/masked_conv.h and plugins/masked_conv. mask is bool, float32 or of
 * x's dtype; bias may be NULL. threads >= 1. */
VD_EXPORT int vd_masked_conv_forward(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                     const vd_tensor* bias, const vd_tensor* output,
                                     const vd_masked_conv_params* params, int threads);

/* Its gradients, float32 and float64. The three results are overwritten and are the same for any thread count. */
VD_EXPORT int vd_masked_conv_backward(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                      const vd_tensor* grad_output, const vd_tensor* grad_x,
                                      const vd_tensor* grad_weight, const vd_tensor* grad_bias,
                                      const vd_masked_conv_params* params, int threads);

/* The same on a CUDA device: tensors are in device memory, stream is a cudaStream_t. */
VD_EXPORT int vd_masked_conv_forward_cuda(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                          const vd_tensor* bias, const vd_tensor* output,
                                          const vd_masked_conv_params* params, void* stream);
VD_EXPORT int vd_masked_conv_backward_cuda(const vd_tensor* x, const vd_tensor* mask, const vd_tensor* weight,
                                           const vd_tensor* grad_output, const vd_tensor* grad_x,
                                           const vd_tensor* grad_weight, const vd_tensor* grad_bias,
                                           const vd_masked_conv_params* params, void* stream);
/* RoI align on a feature pyramid; shapes in visdeploy/roi_align.h and plugins/multi_level_roi_align. */
#define VD_ROI_ALIGN_LEVELS 8

typedef struct {
  int64_t output_height, output_width;
  int64_t sampling_ratio; /* samples along an axis of a bin; 0: one per cell, rounded up */
  int64_t levels;         /* how many of spatial_scales count; as many as there are features */
  float finest_scale;     /* image pixels */
  float spatial_scales[VD_ROI_ALIGN_LEVELS];
} vd_roi_align_params;

/* On the CPU. rois is [rois, 4], float64 with float64 features and float32 with all others; batch_indices is int64.
 * The features after the last are NULL. */
VD_EXPORT int vd_multi_level_roi_align_forward(const vd_tensor* rois, const vd_tensor* batch_indices,
                                               const vd_tensor* feature0, const vd_tensor* feature1,
                                               const vd_tensor* feature2, const vd_tensor* feature3,
                                               const vd_tensor* feature4, const vd_tensor* feature5,
                                               const vd_tensor* feature6, const vd_tensor* feature7,
                                               const vd_tensor* output, const vd_roi_align_params* params, int threads);

/* Gradients of the features, float32 and float64; overwritten, and the same for any thread count. */
VD_EXPORT int vd_multi_level_roi_align_backward(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                const vd_tensor* grad_feature0, const vd_tensor* grad_feature1,
                                                const vd_tensor* grad_feature2, const vd_tensor* grad_feature3,
                                                const vd_tensor* grad_feature4, const vd_tensor* grad_feature5,
                                                const vd_tensor* grad_feature6, const vd_tensor* grad_feature7,
                                                const vd_tensor* grad_output, const vd_roi_align_params* params,
                                                int threads);

/* The same on a CUDA device, where all tensors are; a roi whose index names no image gives zeros. */
VD_EXPORT int vd_multi_level_roi_align_forward_cuda(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                    const vd_tensor* feature0, const vd_tensor* feature1,
                                                    const vd_tensor* feature2, const vd_tensor* feature3,
                                                    const vd_tensor* feature4, const vd_tensor* feature5,
                                                    const vd_tensor* feature6, const vd_tensor* feature7,
                                                    const vd_tensor* output, const vd_roi_align_params* params,
                                                    void* stream);
VD_EXPORT int vd_multi_level_roi_align_backward_cuda(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                     const vd_tensor* grad_feature0, const vd_tensor* grad_feature1,
                                                     const vd_tensor* grad_feature2, const vd_tensor* grad_feature3,
                                                     const vd_tensor* grad_feature4, const vd_tensor* grad_feature5,
                                                     const vd_tensor* grad_feature6, const vd_tensor* grad_feature7,
                                                     const vd_tensor* grad_output, const vd_roi_align_params* params,
                                                     void* stream);

/* Greedy clustering of points by their embeddings, on the CPU; see plugins/embedding_clusters. Distances are float32.
 */
typedef struct {
  float min_seediness;      /* no cluster starts at a point below it */
  float primary_distance;   /* largest distance from the centre at which a free point joins a cluster */
  float secondary_distance; /* the same for points that remain */
  int32_t max_clusters;
} vd_embedding_clusters_params;

/* embeddings is [frames, dimensions, pixels], bandwidths [frames, predicted, pixels], free_bandwidths [dimensions -
 * predicted], seediness [frames, pixels], all float32. The points are pixels: counts [frames] of each frame, places
 * [points] in it, both int64. Results: labels int32 [points], -1 for none; seeds int64 [max_clusters], the point at
 * which each cluster starts, -1 after the last. The results are the same for any thread count. */
VD_EXPORT int vd_embedding_clusters(const vd_tensor* embeddings, const vd_tensor* bandwidths,
                                    const vd_tensor* free_bandwidths, const vd_tensor* seediness,
                                    const vd_tensor* counts, const vd_tensor* places, const vd_tensor* labels,
                                    const vd_tensor* seeds, const vd_embedding_clusters_params* params, int threads);

#ifdef __cplusplus
}
#endif

#endif /* VISDEPLOY_C_API_H */
