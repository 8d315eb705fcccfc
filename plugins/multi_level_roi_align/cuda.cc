// The CUDA side of the C interface.

#include "core/error.h"
#include "multi_level_roi_align/arguments.h"
#include "multi_level_roi_align/cuda_kernel.h"

namespace visdeploy {
namespace {

#if defined(VD_CUDA)
constexpr auto run_forward = multi_level_roi_align_cuda_forward;
constexpr auto run_backward = multi_level_roi_align_cuda_backward;
#else
void run_forward(const MultiLevelRoiAlign&, int, void*) {
  fail("multi_level_roi_align", "CUDA call", "a library built without CUDA", "one built where nvcc is found");
}
constexpr auto run_backward = run_forward;
#endif

}  // namespace
}  // namespace visdeploy

using namespace visdeploy;

extern "C" int vd_multi_level_roi_align_forward_cuda(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                     const vd_tensor* feature0, const vd_tensor* feature1,
                                                     const vd_tensor* feature2, const vd_tensor* feature3,
                                                     const vd_tensor* feature4, const vd_tensor* feature5,
                                                     const vd_tensor* feature6, const vd_tensor* feature7,
                                                     const vd_tensor* output, const vd_roi_align_params* params,
                                                     void* stream) {
  return guarded([&] {
    const vd_tensor* const features[] = {feature0, feature1, feature2, feature3,
                                         feature4, feature5, feature6, feature7};
    MultiLevelRoiAlignCall call = check_multi_level_roi_align(rois, batch_indices, features, params, false);
    check_output(call, output);
    run_forward(call.op, call.dtype, stream);
  });
}

extern "C" int vd_multi_level_roi_align_backward_cuda(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                      const vd_tensor* grad_feature0, const vd_tensor* grad_feature1,
                                                      const vd_tensor* grad_feature2, const vd_tensor* grad_feature3,
                                                      const vd_tensor* grad_feature4, const vd_tensor* grad_feature5,
                                                      const vd_tensor* grad_feature6, const vd_tensor* grad_feature7,
                                                      const vd_tensor* grad_output, const vd_roi_align_params* params,
                                                      void* stream) {
  return guarded([&] {
    const vd_tensor* const grads[] = {grad_feature0, grad_feature1, grad_feature2, grad_feature3,
                                      grad_feature4, grad_feature5, grad_feature6, grad_feature7};
    MultiLevelRoiAlignCall call = check_multi_level_roi_align(rois, batch_indices, grads, params, true);
    check_grad_output(call, grad_output);
    run_backward(call.op, call.dtype, stream);
  });
}
