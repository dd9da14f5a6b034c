// SPDX-License-Identifier: Apache-2.0
// FI_HD: functions that kernels and the host share (index maps, partitions, the bits of a dequantisation), so that
// tests run on the host what the device runs.
#pragma once

#ifdef __CUDACC__
#define FI_HD __host__ __device__ __forceinline__
#else
#define FI_HD inline
#endif
