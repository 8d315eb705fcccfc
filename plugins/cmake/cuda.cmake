# Finds nvcc. VISDEPLOY_CUDA_BUILT is the list of compute capabilities to build for, as "80 86 ...", or empty.
set(VISDEPLOY_CUDA_BUILT "")
if(NOT VISDEPLOY_CUDA)
  message(STATUS "visdeploy_plugins: CPU kernels only (VISDEPLOY_CUDA is off)")
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(
    STATUS "visdeploy_plugins: CPU kernels only (no nvcc that works with this C++ compiler; put one on PATH, or set "
           "CUDACXX and CUDAHOSTCXX)"
  )
  return()
endif()

include(cmake/cuda_architectures.cmake)
visdeploy_nvcc_architectures("${CMAKE_CUDA_COMPILER}" visdeploy_known)
visdeploy_choose_architectures("${visdeploy_known}" "${VISDEPLOY_CUDA_ARCHITECTURES}" VISDEPLOY_CUDA_BUILT)
if(NOT VISDEPLOY_CUDA_BUILT)
  message(
    STATUS "visdeploy_plugins: CPU kernels only (${CMAKE_CUDA_COMPILER} builds for \"${visdeploy_known}\"; wanted are "
           "some of ${VISDEPLOY_CUDA_DEFAULT_ARCHITECTURES})"
  )
  return()
endif()

# Machine code for each capability, and PTX of the highest for those that come after it. A capability in between that
# has no machine code of its own, as 11.0 after 10.0, needs the PTX of a lower one: that of the lowest serves all.
set(CMAKE_CUDA_ARCHITECTURES ${VISDEPLOY_CUDA_BUILT})
list(TRANSFORM CMAKE_CUDA_ARCHITECTURES APPEND "-real")
list(GET VISDEPLOY_CUDA_BUILT 0 visdeploy_lowest)
list(GET VISDEPLOY_CUDA_BUILT -1 visdeploy_highest)
list(APPEND CMAKE_CUDA_ARCHITECTURES "${visdeploy_lowest}-virtual" "${visdeploy_highest}-virtual")
list(REMOVE_DUPLICATES CMAKE_CUDA_ARCHITECTURES)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)
list(JOIN VISDEPLOY_WARNINGS "," visdeploy_warnings)
string(APPEND CMAKE_CUDA_FLAGS " -Xcompiler=${visdeploy_warnings}")
if(VISDEPLOY_WERROR)
  string(APPEND CMAKE_CUDA_FLAGS " -Werror=all-warnings")
endif()
list(JOIN VISDEPLOY_CUDA_BUILT " " VISDEPLOY_CUDA_BUILT)
message(STATUS "visdeploy_plugins: CUDA ${CMAKE_CUDA_COMPILER_VERSION} kernels for ${VISDEPLOY_CUDA_BUILT}")
