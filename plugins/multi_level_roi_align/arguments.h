// Turns the tensors of a caller into a checked call.
#pragma once

#include "visdeploy/c_api.h"
#include "visdeploy/roi_align.h"

namespace visdeploy {

struct MultiLevelRoiAlignCall {
  MultiLevelRoiAlign op;
  int32_t dtype = VD_OTHER;  // of the features
};

// What both directions take. levels are the features of a forward call or the gradients of a backward one, NULL after
// the last. Throws OpError naming the tensor or parameter that is wrong.
MultiLevelRoiAlignCall check_multi_level_roi_align(const vd_tensor* rois, const vd_tensor* batch_indices,
                                                   const vd_tensor* const levels[kRoiAlignLevels],
                                                   const vd_roi_align_params* params, bool backward);
void check_output(MultiLevelRoiAlignCall& call, const vd_tensor* output);
void check_grad_output(MultiLevelRoiAlignCall& call, const vd_tensor* grad_output);

// That every index names an image; they must be readable by the host.
void check_batch_indices(const MultiLevelRoiAlign& op);

}  // namespace visdeploy
