// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/launch.h"
#include "csrc/cuda/device.h"

namespace fi {

int device_count() {
  int n = 0;
  const cudaError_t code = cudaGetDeviceCount(&n);
  if (code == cudaSuccess) return n;
  cudaGetLastError();
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver) return 0;
  throw Error(words("CUDA: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ") when devices were counted"));
}

int runtime_version() {
  int v = 0;
  check_cuda(cudaRuntimeGetVersion(&v), "the runtime's version");
  return v;
}

}  // namespace fi
