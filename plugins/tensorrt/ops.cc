// The list of plugins. An op joins with one line in each of the two places.

#include "tensorrt/op.h"

namespace visdeploy {

const trt::OpType& ms_deform_attn_tensorrt();
const trt::OpType& ms_deform_attn_fused_tensorrt();

namespace trt {

const std::vector<const OpType*>& op_types() {
  static const std::vector<const OpType*> types = {&ms_deform_attn_tensorrt(), &ms_deform_attn_fused_tensorrt()};
  return types;
}

}  // namespace trt
}  // namespace visdeploy
