// SPDX-License-Identifier: Apache-2.0
// Launches of CUDA kernels. A kernel takes one parameter struct; every return code is looked at, and an error names the
// launch and what it was asked to do.
#pragma once
#include <cuda_runtime.h>

#include "csrc/base/error.h"

namespace fi {

template <class... Args>
void check_cuda(cudaError_t code, const Args&... what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // what is remembered would be found by the next launch
  throw Error(words("CUDA: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ") in ", what...));
}

struct Launch {
  dim3 grid, block;
  unsigned shared = 0;   // dynamic bytes
  unsigned cluster = 1;  // blocks along x that share a cluster
  void* stream = nullptr;
  // Begins when all blocks of the launch before it have begun and allow it (let_next_begin) or have ended; the kernel
  // must call wait_for_previous before it touches what other launches write.
  bool early = false;
};

#ifdef __CUDACC__
__device__ __forceinline__ void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ __forceinline__ void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#endif

template <class P, class... Args>
void launch(void (*kernel)(P), const P& p, const Launch& l, const Args&... what) {
  if (l.shared > 48 << 10)  // more must be asked for
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(l.shared)),
               what..., ", ", l.shared, " bytes of shared memory");
  cudaLaunchConfig_t config = {};
  config.gridDim = l.grid;
  config.blockDim = l.block;
  config.dynamicSmemBytes = l.shared;
  config.stream = static_cast<cudaStream_t>(l.stream);
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (l.cluster > 1) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeClusterDimension;
    a.val.clusterDim.x = l.cluster;
    a.val.clusterDim.y = a.val.clusterDim.z = 1;
  }
  if (l.early) {
    cudaLaunchAttribute& a = attributes[config.numAttrs++];
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
  }
  check_cuda(cudaLaunchKernelEx(&config, kernel, p), what..., ", grid ", l.grid.x, "x", l.grid.y, "x", l.grid.z,
             ", block ", l.block.x, ", cluster ", l.cluster, ", shared ", l.shared);
}

}  // namespace fi
