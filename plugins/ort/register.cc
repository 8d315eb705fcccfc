// The entry point that ONNX Runtime calls when the library is registered with a session. An op joins with one line in
// each of the two lists.

#include <memory>

#include "ort/tensor_view.h"

namespace visdeploy {

std::vector<const OrtCustomOp*> deform_conv_ort_ops();
std::vector<const OrtCustomOp*> ms_deform_attn_ort_ops();
std::vector<const OrtCustomOp*> masked_conv_ort_ops();

namespace {

void register_ops(OrtSessionOptions* options) {
  static Ort::CustomOpDomain* domain = [] {
    auto created = std::make_unique<Ort::CustomOpDomain>("visdeploy");
    for (const auto& ops : {deform_conv_ort_ops(), masked_conv_ort_ops(), ms_deform_attn_ort_ops()}) {
      for (const OrtCustomOp* op : ops) created->Add(op);
    }
    // Lives as long as the process: sessions refer to it, and at exit ONNX Runtime may be gone before this library.
    return created.release();
  }();
  Ort::UnownedSessionOptions(options).Add(*domain);
}

}  // namespace
}  // namespace visdeploy

extern "C" VD_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    const std::string seen = base->GetVersionString();
    return base->GetApi(1)->CreateStatus(ORT_FAIL, ("visdeploy_plugins: this ONNX Runtime is too old (seen: " + seen +
                                                    "; expected: 1." + std::to_string(ORT_API_VERSION) + " or later)")
                                                       .c_str());
  }
  Ort::InitApi(api);
  return visdeploy::ort_guarded([&] { visdeploy::register_ops(options); });
}
