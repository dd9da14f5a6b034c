# SPDX-License-Identifier: Apache-2.0
# One object library per instruction set. A file named kernels/<family>/x86_<isa>.cc is compiled with that set's flags
# and with FI_ISA=<isa>, the namespace everything in it must live in (no symbol may be shared between sets: ODR).
# kernels/<family>/reference.cc is the portable variant, compiled with the baseline flags and FI_ISA=baseline.
set(fi_flags_avx2 -mavx2 -mfma -mf16c)
set(fi_flags_avx512 ${fi_flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mprefer-vector-width=512)
set(fi_flags_avx512vnni ${fi_flags_avx512} -mavx512vnni)
set(fi_flags_avx512bf16 ${fi_flags_avx512vnni} -mavx512bf16)

if(FASTINFER_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1)
  add_link_options(-fsanitize=address,undefined)
endif()

# -Wno-uninitialized: gcc 12 warns inside its own AVX-512 intrinsics (gcc bug 105593).
function(fastinfer_isa_object isa out)
  add_library(fi_${isa} OBJECT ${ARGN})
  target_include_directories(fi_${isa} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(fi_${isa} PRIVATE FI_ISA=${isa})
  target_compile_options(fi_${isa} PRIVATE ${fi_flags_${isa}} -Wall -Wextra -Wno-unused-function
                         -Wno-unused-parameter -Wno-uninitialized -fno-math-errno -fno-trapping-math -ffp-contract=off)
  set(${out} ${${out}} $<TARGET_OBJECTS:fi_${isa}> PARENT_SCOPE)
endfunction()

function(fastinfer_isa_objects out)
  set(objects)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*/reference.cc)
  if(sources)
    fastinfer_isa_object(baseline objects ${sources})
  endif()
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    foreach(isa avx2 avx512 avx512vnni avx512bf16)
      file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*/x86_${isa}.cc)
      if(sources)
        fastinfer_isa_object(${isa} objects ${sources})
      endif()
    endforeach()
  endif()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()
