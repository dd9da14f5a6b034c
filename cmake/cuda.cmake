# SPDX-License-Identifier: Apache-2.0
# fastinfer._cuda: kernels/*/*.cu and csrc/cuda/. FASTINFER_CUDA: AUTO (built where nvcc works), ON (an error where not), OFF.
# The runtime is linked statically: nothing of CUDA but the driver must be installed where the module is used.
set(FASTINFER_CUDA AUTO CACHE STRING "Build the CUDA C++ kernels: AUTO, ON or OFF")
set_property(CACHE FASTINFER_CUDA PROPERTY STRINGS AUTO ON OFF)

if(FASTINFER_CUDA AND NOT FASTINFER_SANITIZE)
  # Looked for by hand first: CMake's own search for a compiler that is not there costs a second.
  find_program(FASTINFER_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(FASTINFER_NVCC)
    if(NOT DEFINED ENV{CUDACXX})
      set(ENV{CUDACXX} ${FASTINFER_NVCC})
    endif()
    # sm_90a machine code, and PTX that drivers of later chips compile.
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 90a-real 90-virtual)
    endif()
    if(CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
    endif()
    # In a project of its own, so that an nvcc that does not get on with the C++ compiler is no error here.
    include(CheckLanguage)
    check_language(CUDA)
  endif()
  if(FASTINFER_NVCC AND CMAKE_CUDA_COMPILER)
    set(FASTINFER_CUDA_WORKS TRUE)
  elseif(FASTINFER_CUDA STREQUAL "AUTO")
    message(STATUS "No CUDA compiler that works: fastinfer._cuda is not built")
  else()
    message(FATAL_ERROR "FASTINFER_CUDA=ON, and no nvcc that works was found (PATH, CUDA_HOME, /usr/local/cuda)")
  endif()
endif()

if(FASTINFER_CUDA_WORKS)
  enable_language(CUDA)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
  file(GLOB sources CONFIGURE_DEPENDS csrc/cuda/*.cc csrc/cuda/*.cu kernels/*/*.cu)
  pybind11_add_module(_cuda NO_EXTRAS ${sources})
  target_include_directories(_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
                                         CUDA_STANDARD 17 # CMake 3.25 knows no 20 for nvcc
                                         CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O1 -Wall -Wextra>
                                       $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall>)
  target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
  if(FASTINFER_IN_SOURCE)
    set_target_properties(_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_SOURCE_DIR}/src/fastinfer)
  endif()
  install(TARGETS _cuda LIBRARY DESTINATION fastinfer)
endif()
