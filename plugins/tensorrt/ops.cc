// The list of plugins. An op joins with one line in each of the two places.

#include "tensorrt/op.h"

namespace visdeploy {

const trt::OpType& deform_conv_tensorrt();
const trt::OpType& masked_conv_tensorrt();
const trt::OpType& ms_deform_attn_tensorrt();
const trt::OpType& ms_deform_attn_fused_tensorrt();
const trt::OpType& multi_level_roi_align_tensorrt();

namespace trt {

const std::vector<const OpType*>& op_types() {
  static const std::vector<const OpType*> types = {&deform_conv_tensorrt(), &masked_conv_tensorrt(),
                                                   &ms_deform_attn_tensorrt(), &ms_deform_attn_fused_tensorrt(),
                                                   &multi_level_roi_align_tensorrt()};
  return types;
}

}  // namespace trt
}  // namespace visdeploy
