"""ONNX Runtime on the CPU and on CUDA, with the state kept on the device."""

from visdeploy.backends.onnxruntime.backend import OnnxRuntimeBackend

__all__ = ["OnnxRuntimeBackend"]
