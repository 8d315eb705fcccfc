// Deliberately empty. The ONNX parser of TensorRT for RTX 1.7 opens "libtensorrt_rtx.so" when it meets the first
// plugin, and ends the process when there is no such file; its Python package brings only "libtensorrt_rtx.so.1". A
// library with the first name as soname that depends on the second satisfies it once loaded:
// visdeploy_plugins/tensorrt.py.
