#include "tensorrt/harness/session.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <deque>

#include "tensorrt/dtype.h"

namespace visdeploy {
namespace harness {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginFieldType;
using PluginPtr = std::unique_ptr<nvinfer1::IPluginV3>;

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

nvinfer1::PluginTensorDesc describe(const Tensor& tensor) {
  nvinfer1::PluginTensorDesc desc = {};
  desc.dims.nbDims = static_cast<int32_t>(tensor.shape.size());
  for (size_t i = 0; i < tensor.shape.size(); ++i) desc.dims.d[i] = tensor.shape[i];
  desc.type = trt::to_tensorrt(tensor.dtype);
  desc.format = nvinfer1::TensorFormat::kLINEAR;
  desc.scale = 1;
  return desc;
}

// The attributes as the ONNX parser hands them over; owns what the fields point to.
struct NodeFields {
  std::deque<std::vector<float>> reals;
  std::deque<std::vector<int32_t>> integers;
  std::vector<nvinfer1::PluginField> fields;

  explicit NodeFields(const std::vector<Attribute>& attributes) {
    for (const Attribute& each : attributes) {
      const auto length = static_cast<int32_t>(each.values.size());
      if (each.real) {
        const auto& kept = reals.emplace_back(each.values.begin(), each.values.end());
        fields.emplace_back(each.name.c_str(), kept.data(), PluginFieldType::kFLOAT32, length);
      } else {
        const auto& kept = integers.emplace_back(each.values.begin(), each.values.end());
        fields.emplace_back(each.name.c_str(), kept.data(), PluginFieldType::kINT32, length);
      }
    }
  }
};

template <typename Interface>
Interface& capability(nvinfer1::IPluginV3& plugin, PluginCapabilityType type) {
  nvinfer1::IPluginCapability* found = plugin.getCapabilityInterface(type);
  require(found != nullptr, "getCapabilityInterface: null");
  return *static_cast<Interface*>(found);
}

nvinfer1::IPluginV3OneRuntime& runtime_of(const PluginPtr& plugin) {
  return capability<nvinfer1::IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
}

// What the builder asks: types and formats of every tensor, then the plugin is told what it will get.
void build(nvinfer1::IPluginV3& plugin, const std::vector<Tensor>& inputs, const Tensor& output) {
  auto& builder = capability<nvinfer1::IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  const auto count = static_cast<int32_t>(inputs.size());
  require(builder.getNbOutputs() == 1, "getNbOutputs: not 1");
  std::vector<DataType> types;
  std::vector<nvinfer1::DynamicPluginTensorDesc> tensors;
  for (const Tensor& tensor : inputs) {
    types.push_back(trt::to_tensorrt(tensor.dtype));
    const nvinfer1::PluginTensorDesc desc = describe(tensor);
    tensors.push_back({desc, desc.dims, desc.dims, desc.dims});
  }
  const nvinfer1::PluginTensorDesc desc = describe(output);
  tensors.push_back({desc, desc.dims, desc.dims, desc.dims});
  DataType type = DataType::kINT8;
  require(builder.getOutputDataTypes(&type, 1, types.data(), count) == 0, "getOutputDataTypes: failed");
  require(type == desc.type, "getOutputDataTypes: another type");
  for (int32_t position = 0; position <= count; ++position) {
    require(builder.supportsFormatCombination(position, tensors.data(), count, 1),
            "supportsFormatCombination: no for tensor " + std::to_string(position));
  }
  require(builder.configurePlugin(tensors.data(), count, tensors.data() + count, 1) == 0, "configurePlugin: failed");
  require(builder.getWorkspaceSize(tensors.data(), count, tensors.data() + count, 1) == 0, "getWorkspaceSize: not 0");
}

// Discards what is written to the standard error stream: a message for each refusal, where there is no TensorRT.
class Silence {
 public:
  Silence() : kept_(dup(STDERR_FILENO)) {
    const int nowhere = open("/dev/null", O_WRONLY);
    std::fflush(stderr);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
  }
  ~Silence() {
    std::fflush(stderr);
    dup2(kept_, STDERR_FILENO);
    close(kept_);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int kept_;
};

// The tensors of a case, the output last, each with memory enough for any type.
struct Operands {
  std::vector<nvinfer1::PluginTensorDesc> descs;
  std::deque<Buffer> buffers;
  std::vector<const void*> addresses;

  Operands(const Memory& memory, const Case& one) {
    for (const Tensor& input : one.inputs) add(memory, input);
    add(memory, Tensor(one.output_shape, VD_FLOAT32));
  }

  bool supported(nvinfer1::IPluginV3OneBuild& builder) const {
    std::vector<nvinfer1::DynamicPluginTensorDesc> tensors;
    for (const nvinfer1::PluginTensorDesc& desc : descs) tensors.push_back({desc, desc.dims, desc.dims, desc.dims});
    const auto count = static_cast<int32_t>(descs.size());
    for (int32_t position = 0; position < count; ++position) {
      if (!builder.supportsFormatCombination(position, tensors.data(), count - 1, 1)) return false;
    }
    return true;
  }

  bool runs(nvinfer1::IPluginV3OneRuntime& runtime) const {
    void* output = const_cast<void*>(addresses.back());
    return runtime.enqueue(descs.data(), &descs.back(), addresses.data(), &output, nullptr, nullptr) == 0;
  }

  std::string text() const {
    std::string text;
    for (const nvinfer1::PluginTensorDesc& desc : descs) {
      text += " " + std::to_string(static_cast<int32_t>(desc.type)) + "/" +
              std::to_string(static_cast<int32_t>(desc.format));
    }
    return text;
  }

 private:
  void add(const Memory& memory, const Tensor& tensor) {
    descs.push_back(describe(tensor));
    // Values as the case has them: whatever their bytes mean in another type, kernels stay inside of the tensors.
    std::vector<char> bytes = tensor.bytes;
    bytes.resize(static_cast<size_t>(tensor.elements()) * 8);
    addresses.push_back(buffers.emplace_back(memory, bytes.data(), bytes.size()).address());
  }
};

}  // namespace

Library::Library(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  using GetCreators = nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&);
  const auto get_creators = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
  require(get_creators != nullptr, std::string(path) + " has no getCreators");
  list_ = get_creators(count_);
  require(list_ != nullptr && count_ > 0, "getCreators: none");
}

nvinfer1::IPluginCreatorV3One& Library::creator(const std::string& op) const {
  for (int32_t i = 0; i < count_; ++i) {
    auto& creator = *static_cast<nvinfer1::IPluginCreatorV3One*>(list_[i]);
    if (op == creator.getPluginName()) return creator;
  }
  throw std::runtime_error("no creator of " + op);
}

Combinations compare_combinations(const Library& library, const Memory& memory, const Case& one) {
  constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT32, DataType::kBOOL};
  constexpr size_t kCount = sizeof(kTypes) / sizeof(kTypes[0]);
  const NodeFields node(one.attributes);
  const nvinfer1::PluginFieldCollection collection = {static_cast<int32_t>(node.fields.size()), node.fields.data()};
  const PluginPtr plugin(library.creator(one.op).createPlugin("asked", &collection, nvinfer1::TensorRTPhase::kBUILD));
  require(plugin != nullptr, "createPlugin: null");
  auto& builder = capability<nvinfer1::IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
  nvinfer1::IPluginV3OneRuntime& runtime = runtime_of(plugin);
  Operands operands(memory, one);
  const size_t tensors = operands.descs.size();
  require(
      runtime.onShapeChange(operands.descs.data(), static_cast<int32_t>(tensors - 1), &operands.descs.back(), 1) == 0,
      "onShapeChange: failed");
  Combinations found;
  const auto ask = [&] {
    const bool supported = operands.supported(builder);
    require(supported == operands.runs(runtime),
            std::string(supported ? "supportsFormatCombination" : "enqueue") + " alone takes" + operands.text());
    ++found.asked;
    found.taken += supported ? 1 : 0;
  };
  const Silence silence;
  size_t all = 1;
  for (size_t i = 0; i < tensors; ++i) all *= kCount;
  const std::vector<nvinfer1::PluginTensorDesc> first = operands.descs;
  for (size_t number = 0; number < all; ++number) {
    size_t rest = number;
    for (size_t i = 0; i < tensors; ++i, rest /= kCount) {
      const DataType type = kTypes[rest % kCount];
      // Index tensors are of 64 bits in the cases.
      operands.descs[i].type = first[i].type == DataType::kINT64 && type == DataType::kFLOAT ? DataType::kINT64 : type;
    }
    ask();
  }
  operands.descs = first;
  for (nvinfer1::PluginTensorDesc& desc : operands.descs) {
    desc.format = nvinfer1::TensorFormat::kCHW32;
    ask();
    desc.format = nvinfer1::TensorFormat::kLINEAR;
  }
  memory.finish();
  return found;
}

Tensor run_plugin(const Library& library, const Memory& memory, const Case& one, int32_t dtype) {
  nvinfer1::IPluginCreatorV3One& creator = library.creator(one.op);
  const NodeFields node(one.attributes);
  const nvinfer1::PluginFieldCollection collection = {static_cast<int32_t>(node.fields.size()), node.fields.data()};
  const PluginPtr built(creator.createPlugin("built", &collection, nvinfer1::TensorRTPhase::kBUILD));
  require(built != nullptr, "createPlugin: null in the build phase");
  Tensor output(one.output_shape, dtype);
  build(*built, one.inputs, output);

  const PluginPtr loaded(
      creator.createPlugin("loaded", runtime_of(built).getFieldsToSerialize(), nvinfer1::TensorRTPhase::kRUNTIME));
  require(loaded != nullptr, "createPlugin: null in the runtime phase");
  const PluginPtr attached(runtime_of(loaded).attachToContext(nullptr));
  require(attached != nullptr, "attachToContext: null");

  std::vector<nvinfer1::PluginTensorDesc> descs;
  std::deque<Buffer> buffers;
  std::vector<const void*> addresses;
  for (const Tensor& input : one.inputs) {
    descs.push_back(describe(input));
    addresses.push_back(buffers.emplace_back(memory, input.bytes.data(), input.bytes.size()).address());
  }
  const nvinfer1::PluginTensorDesc desc = describe(output);
  const Buffer result(memory, output.bytes.data(), output.bytes.size());
  void* address = result.address();
  nvinfer1::IPluginV3OneRuntime& runtime = runtime_of(attached);
  const auto count = static_cast<int32_t>(descs.size());
  require(runtime.onShapeChange(descs.data(), count, &desc, 1) == 0, "onShapeChange: failed");
  require(runtime.enqueue(descs.data(), &desc, addresses.data(), &address, nullptr, nullptr) == 0, "enqueue: failed");
  memory.finish();
  result.read(output.bytes.data());
  return output;
}

}  // namespace harness
}  // namespace visdeploy
