// The CPU side of the C interface: check the tensors, share out boxes and maps.

#include <vector>

#include "core/error.h"
#include "core/parallel.h"
#include "multi_level_roi_align/arguments.h"
#include "multi_level_roi_align/cpu_kernel.h"

using namespace visdeploy;

namespace {

using Kernel = void (*)(const RoiAlignJob&, int64_t, int64_t, void*);

void run(const MultiLevelRoiAlignCall& call, const Kernel (&kernels)[5], int threads) {
  check_batch_indices(call.op);
  const RoiAlignWork work(call.op, call.dtype);
  parallel_for(call.op.rois, work.tap_cost, threads, [&](int64_t begin, int64_t end) { work.find_taps(begin, end); });
  parallel_for(work.items, work.item_cost, threads, [&](int64_t begin, int64_t end) {
    std::vector<double> scratch(static_cast<size_t>(work.scratch));
    kernels[call.dtype](work.job, begin, end, scratch.data());
  });
}

}  // namespace

extern "C" int vd_multi_level_roi_align_forward(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                const vd_tensor* feature0, const vd_tensor* feature1,
                                                const vd_tensor* feature2, const vd_tensor* feature3,
                                                const vd_tensor* feature4, const vd_tensor* feature5,
                                                const vd_tensor* feature6, const vd_tensor* feature7,
                                                const vd_tensor* output, const vd_roi_align_params* params,
                                                int threads) {
  return guarded([&] {
    const vd_tensor* const features[] = {feature0, feature1, feature2, feature3,
                                         feature4, feature5, feature6, feature7};
    MultiLevelRoiAlignCall call = check_multi_level_roi_align(rois, batch_indices, features, params, false);
    check_output(call, output);
    run(call, multi_level_roi_align_cpu().forward, threads);
  });
}

extern "C" int vd_multi_level_roi_align_backward(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                 const vd_tensor* grad_feature0, const vd_tensor* grad_feature1,
                                                 const vd_tensor* grad_feature2, const vd_tensor* grad_feature3,
                                                 const vd_tensor* grad_feature4, const vd_tensor* grad_feature5,
                                                 const vd_tensor* grad_feature6, const vd_tensor* grad_feature7,
                                                 const vd_tensor* grad_output, const vd_roi_align_params* params,
                                                 int threads) {
  return guarded([&] {
    const vd_tensor* const grads[] = {grad_feature0, grad_feature1, grad_feature2, grad_feature3,
                                      grad_feature4, grad_feature5, grad_feature6, grad_feature7};
    MultiLevelRoiAlignCall call = check_multi_level_roi_align(rois, batch_indices, grads, params, true);
    check_grad_output(call, grad_output);
    run(call, multi_level_roi_align_cpu().backward, threads);
  });
}
