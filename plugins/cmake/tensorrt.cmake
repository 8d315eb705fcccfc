# The TensorRT plugin library. It needs TensorRT's headers, which lie in third_party/, and CUDA's runtime, which comes
# with nvcc; it links with no TensorRT library.
set(visdeploy_default "${CMAKE_CURRENT_SOURCE_DIR}/third_party/tensorrt/include")
if(DEFINED ENV{TENSORRT_ROOT})
  set(visdeploy_default "$ENV{TENSORRT_ROOT}/include")
endif()
set(VISDEPLOY_TENSORRT_INCLUDE "${visdeploy_default}" CACHE PATH "Folder of NvInferRuntime.h")

function(visdeploy_find_tensorrt)
  if(NOT EXISTS "${VISDEPLOY_TENSORRT_INCLUDE}/NvInferRuntime.h")
    message(FATAL_ERROR "no NvInferRuntime.h in ${VISDEPLOY_TENSORRT_INCLUDE}: set TENSORRT_ROOT to a TensorRT folder")
  endif()
  file(STRINGS "${VISDEPLOY_TENSORRT_INCLUDE}/NvInferVersion.h" version REGEX "define (TRT|NV_TENSORRT)_M[A-Z_]+ [0-9]")
  string(REGEX MATCHALL " [0-9]+" version "${version}")
  string(REGEX REPLACE "^ ([0-9]+); ([0-9]+).*" "\\1.\\2" version "${version}")
  message(STATUS "visdeploy_plugins: TensorRT plugins with the headers of TensorRT ${version}")
  find_package(CUDAToolkit REQUIRED)
endfunction()

# What the library and its emulation share; visdeploy_add_op() adds the ops.
function(visdeploy_add_tensorrt_library target)
  add_library(
    ${target} SHARED tensorrt/fields.cc tensorrt/log.cc tensorrt/op.cc tensorrt/ops.cc tensorrt/plugin.cc
                     tensorrt/register.cc
  )
  target_include_directories(${target} SYSTEM PRIVATE "${VISDEPLOY_TENSORRT_INCLUDE}" ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(${target} PRIVATE visdeploy_kernels CUDA::cudart_static ${CMAKE_DL_LIBS})
  # The rest stays inside: TensorRT may load several plugin libraries, and unloads them.
  set(exports "${CMAKE_CURRENT_SOURCE_DIR}/tensorrt/exports.map")
  target_link_options(${target} PRIVATE -Wl,--no-undefined "-Wl,--version-script=${exports}")
  set_target_properties(${target} PROPERTIES LINK_DEPENDS "${exports}")
endfunction()

# An empty library named libtensorrt_rtx.so that depends on libtensorrt_rtx.so.1; rtx_alias.cc says what for. To link
# it, an empty library stands in for the latter, which needs not be on this machine.
function(visdeploy_add_rtx_alias)
  add_library(tensorrt_rtx_stand_in SHARED tensorrt/rtx_alias.cc)
  set_target_properties(tensorrt_rtx_stand_in PROPERTIES NO_SONAME TRUE)
  target_link_options(tensorrt_rtx_stand_in PRIVATE -Wl,-soname,libtensorrt_rtx.so.1)
  add_library(visdeploy_tensorrt_rtx_alias SHARED tensorrt/rtx_alias.cc)
  set_target_properties(visdeploy_tensorrt_rtx_alias PROPERTIES NO_SONAME TRUE SKIP_BUILD_RPATH TRUE)
  target_link_options(visdeploy_tensorrt_rtx_alias PRIVATE -Wl,-soname,libtensorrt_rtx.so -Wl,--no-as-needed)
  target_link_libraries(visdeploy_tensorrt_rtx_alias PRIVATE tensorrt_rtx_stand_in)
endfunction()

# Drives the plugins without an engine, against the CPU kernels.
function(visdeploy_add_tensorrt_harness)
  add_executable(
    visdeploy_tensorrt_harness tensorrt/harness/main.cc tensorrt/harness/case.cc tensorrt/harness/cases.cc
                               tensorrt/harness/session.cc
  )
  target_include_directories(
    visdeploy_tensorrt_harness SYSTEM PRIVATE "${VISDEPLOY_TENSORRT_INCLUDE}" ${CUDAToolkit_INCLUDE_DIRS}
  )
  target_link_libraries(
    visdeploy_tensorrt_harness PRIVATE visdeploy_flags visdeploy_ops CUDA::cudart_static ${CMAKE_DL_LIBS}
  )
  # setup.py moves it, together with the library
  set_target_properties(visdeploy_tensorrt_harness PROPERTIES BUILD_RPATH "$ORIGIN")
endfunction()
