# The fuzz target: with clang a libFuzzer program, with other compilers one with a driver of its own. It holds the C
# interface, with the CUDA kernels compiled for the host as the emulation library has them, and what TensorRT plugins do
# without TensorRT.
add_executable(
  visdeploy_fuzz core/c_api.cc fuzz/target.cc fuzz/tensor.cc fuzz/tensorrt.cc tensorrt/fields.cc tensorrt/op.cc
                 tensorrt/ops.cc
)
target_compile_definitions(visdeploy_fuzz PRIVATE VD_EMULATE_CUDA VD_CUDA VD_CUDA_ARCHITECTURES="emulation")
target_link_libraries(visdeploy_fuzz PRIVATE visdeploy_kernels)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # It warns of other things than GCC, for which the code is clean, and knows none of its pragmas.
  target_compile_options(visdeploy_flags INTERFACE -fsanitize=fuzzer-no-link -Wno-error)
  target_link_options(visdeploy_fuzz PRIVATE -fsanitize=fuzzer)
else()
  target_sources(visdeploy_fuzz PRIVATE fuzz/driver.cc)
endif()

# Adds an op with its subject, fuzz/<op>.cc. That file is all that an op needs to be fuzzed.
function(visdeploy_fuzz_op op)
  set(emulated "${CMAKE_CURRENT_BINARY_DIR}/emulation/${op}.cc")
  file(CONFIGURE OUTPUT "${emulated}" CONTENT "#include \"${op}/cuda_kernel.cu\"\n")
  target_sources(visdeploy_fuzz PRIVATE ${op}/cpu.cc ${op}/cuda.cc "${emulated}" fuzz/${op}.cc)
  if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${op}/tensorrt_plugin.cc")
    target_sources(visdeploy_fuzz PRIVATE ${op}/tensorrt_plugin.cc)
  endif()
endfunction()
