# Which compute capabilities are built. Its own file, so that tests can call the functions with `cmake -P`.

# Turing (7.5) to consumer Blackwell (12.0), with Jetson Orin (8.7): a device takes the machine code of its own major
# version and of the highest minor one that does not exceed its own, else PTX.
set(VISDEPLOY_CUDA_DEFAULT_ARCHITECTURES 75 80 86 87 89 90 100 120)

# The capabilities that an nvcc builds for, as "75;80;...", or empty where it does not say. Versions differ at both ends.
function(visdeploy_nvcc_architectures nvcc result)
  execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE listed ERROR_QUIET RESULT_VARIABLE status)
  set(known "")
  if(status EQUAL 0)
    string(REGEX MATCHALL "compute_[0-9]+" known "${listed}")
    list(TRANSFORM known REPLACE "compute_" "")
  endif()
  set(${result} "${known}" PARENT_SCOPE)
endfunction()

# Those to build for, in ascending order: the wanted ones, every one of which the compiler must know, or, where none is
# wanted, those of the default list that it knows, which may be none.
function(visdeploy_choose_architectures known wanted result)
  set(candidates ${wanted})
  if(NOT wanted)
    set(candidates ${VISDEPLOY_CUDA_DEFAULT_ARCHITECTURES})
  endif()
  set(chosen "")
  foreach(architecture IN LISTS candidates)
    # A letter, as in 90a, names features of one chip.
    string(REGEX REPLACE "[a-z]$" "" number "${architecture}")
    if(number IN_LIST known)
      list(APPEND chosen "${architecture}")
    elseif(wanted)
      message(
        FATAL_ERROR "VISDEPLOY_CUDA_ARCHITECTURES: this nvcc does not build for ${architecture} (seen: ${wanted}; "
                    "expected: some of ${known}). Leave the option out to build for all that it knows."
      )
    else()
      message(STATUS "visdeploy_plugins: this nvcc does not build for compute capability ${architecture}")
    endif()
  endforeach()
  list(SORT chosen COMPARE NATURAL)
  list(REMOVE_DUPLICATES chosen)
  set(${result} "${chosen}" PARENT_SCOPE)
endfunction()
