// TensorRT's element types as those of the C interface, and back.
#pragma once

#include <NvInferRuntime.h>
#include "visdeploy/c_api.h"

namespace visdeploy {
namespace trt {

inline int32_t from_tensorrt(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return VD_FLOAT32;
    case nvinfer1::DataType::kHALF:
      return VD_FLOAT16;
    case nvinfer1::DataType::kBF16:
      return VD_BFLOAT16;
    case nvinfer1::DataType::kINT32:
      return VD_INT32;
    case nvinfer1::DataType::kINT64:
      return VD_INT64;
    case nvinfer1::DataType::kBOOL:
      return VD_BOOL;
    default:
      return VD_OTHER;
  }
}

inline nvinfer1::DataType to_tensorrt(int32_t dtype) {
  switch (dtype) {
    case VD_FLOAT16:
      return nvinfer1::DataType::kHALF;
    case VD_BFLOAT16:
      return nvinfer1::DataType::kBF16;
    case VD_INT32:
      return nvinfer1::DataType::kINT32;
    case VD_INT64:
      return nvinfer1::DataType::kINT64;
    case VD_BOOL:
      return nvinfer1::DataType::kBOOL;
    default:
      return nvinfer1::DataType::kFLOAT;
  }
}

}  // namespace trt
}  // namespace visdeploy
