# An op is a folder with
#   arguments.cc      checks of its tensors
#   cpu_kernel.cc     compiled once per instruction set; defines the table named VD_ISA_TABLE
#   cpu_dispatch.cc   picks the table for this machine
#   cpu.cc            its CPU entry points of the C interface
#   cuda.cc           its CUDA entry points of the C interface
#   cuda_kernel.cu    its CUDA kernels, compiled when nvcc is there, and by the host compiler for the emulation
#   ort_op.cc         its ONNX Runtime ops
#   tensorrt_plugin.cc  its TensorRT plugins, compiled when nvcc is there
# and with further files for the CPU, if any, which are named after the op.

option(VISDEPLOY_BASELINE_ONLY "Compile the CPU kernels for the baseline instruction set alone" OFF)

# Tells code which instruction sets its machine family has.
function(visdeploy_use_instruction_sets target)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT VISDEPLOY_BASELINE_ONLY)
    target_compile_definitions(${target} PUBLIC VD_X86)
    set(VISDEPLOY_ISAS baseline avx2 avx512 PARENT_SCOPE)
  else()
    set(VISDEPLOY_ISAS baseline PARENT_SCOPE)
  endif()
endfunction()

set(VISDEPLOY_FLAGS_baseline "")
set(VISDEPLOY_FLAGS_avx2 -mavx2 -mfma)
set(VISDEPLOY_FLAGS_avx512 -mavx2 -mfma -mavx512f -mavx512vl -mavx512bw -mavx512dq)

# Sanitizers make optimising these templates a matter of minutes each, and find as much without: the build type decides.
set(VISDEPLOY_KERNEL_OPTIMISATION -O3)
if(VISDEPLOY_SANITIZE)
  set(VISDEPLOY_KERNEL_OPTIMISATION "")
endif()

function(visdeploy_add_op op)
  target_sources(visdeploy_kernels PRIVATE ${op}/arguments.cc)
  foreach(isa ${VISDEPLOY_ISAS})
    # No errno, no trapping: both would only keep the compiler from using conditional moves and vector compares.
    add_library(${op}_${isa} OBJECT ${op}/cpu_kernel.cc)
    target_link_libraries(${op}_${isa} PRIVATE visdeploy_flags)
    target_compile_options(${op}_${isa} PRIVATE ${VISDEPLOY_KERNEL_OPTIMISATION} -fno-math-errno -fno-trapping-math ${VISDEPLOY_FLAGS_${isa}})
    target_compile_definitions(${op}_${isa} PRIVATE VD_ISA_TABLE=${op}_${isa})
    target_sources(visdeploy_kernels PRIVATE $<TARGET_OBJECTS:${op}_${isa}>)
  endforeach()
  target_sources(visdeploy_kernels PRIVATE ${op}/cpu_dispatch.cc)
  foreach(file ${ARGN})
    target_sources(visdeploy_kernels PRIVATE ${op}/${file})
  endforeach()
  target_sources(visdeploy_ops PRIVATE ${op}/cpu.cc ${op}/cuda.cc)
  target_sources(visdeploy_onnxruntime PRIVATE ${op}/ort_op.cc)
  if(VISDEPLOY_CUDA_BUILT)
    target_sources(visdeploy_kernels PRIVATE ${op}/cuda_kernel.cu)
    target_compile_definitions(visdeploy_ops PRIVATE VD_CUDA)
    target_compile_definitions(visdeploy_onnxruntime PRIVATE VD_CUDA)
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${op}/tensorrt_plugin.cc")
      target_sources(visdeploy_tensorrt PRIVATE ${op}/tensorrt_plugin.cc)
    endif()
  endif()
  if(VISDEPLOY_EMULATION)
    # A file of its own includes the kernels, because CMake would compile the .cu itself with nvcc.
    set(emulated "${CMAKE_CURRENT_BINARY_DIR}/emulation/${op}.cc")
    file(CONFIGURE OUTPUT "${emulated}" CONTENT "#include \"${op}/cuda_kernel.cu\"\n")
    target_sources(visdeploy_emulation PRIVATE "${emulated}" ${op}/cpu.cc ${op}/cuda.cc)
    target_sources(visdeploy_onnxruntime_emulation PRIVATE "${emulated}" ${op}/ort_op.cc)
    if(VISDEPLOY_CUDA_BUILT)
      target_sources(visdeploy_tensorrt_emulation PRIVATE "${emulated}")
      if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${op}/tensorrt_plugin.cc")
        target_sources(visdeploy_tensorrt_emulation PRIVATE ${op}/tensorrt_plugin.cc)
      endif()
    endif()
  endif()
  if(VISDEPLOY_FUZZ)
    visdeploy_fuzz_op(${op})
  endif()
endfunction()
