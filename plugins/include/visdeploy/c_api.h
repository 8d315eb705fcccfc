/* The C interface of the operator library: what PyTorch's binding, other languages and the tests call.
 *
 * Every function returns 0 when it did its work. Otherwise nothing was written and vd_last_error() says, for the
 * calling thread, which op and tensor were wrong, what was seen and what was expected. No function throws. */
#ifndef VISDEPLOY_C_API_H
#define VISDEPLOY_C_API_H

#include <stddef.h>
#include <stdint.h>

#define VD_ABI_VERSION 1
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

/* Multi-scale deformable attention on the CPU; shapes in visdeploy/ms_deform_attn.h and plugins/ms_deform_attn.
 * spatial_shapes is [levels, 2] (height, width), level_start_index [levels]; both int64 or both int32.
 * sampling_locations and attention_weights have value's dtype, or are float32 where that is a half-precision one.
 * threads >= 1. */
VD_EXPORT int vd_ms_deform_attn_forward(const vd_tensor* value, const vd_tensor* spatial_shapes,
                                        const vd_tensor* level_start_index, const vd_tensor* sampling_locations,
                                        const vd_tensor* attention_weights, const vd_tensor* output, int threads);

/* Its gradients, float32 and float64. The three results are overwritten and are the same for any thread count. */
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

#ifdef __cplusplus
}
#endif

#endif /* VISDEPLOY_C_API_H */
