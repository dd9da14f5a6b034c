// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution of bytes, channels last: exact sums in 32 bits,
//
//   S[n, o, c] = bias[c] + sum over taps t inside the image of (X[..., c] - zx) * W[t, c]
//
// W in 16 bits with its zero points taken off. Y is S or S scaled, rounded half to even and saturated.
#pragma once
#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "kernels/conv/geometry.h"
#include "kernels/gemm/gemm_u8s8.h"

namespace fi {

struct DepthwiseBytes {
  Geometry g;
  int64_t batch = 0, channels = 0;
  bool signed_x = false;
  QuantizedOutput output = QuantizedOutput::s32;
  Requantize q;
};
struct DepthwiseBytesKernel {
  const char* name;
  // args: X, W s16 [taps, C], zx s32 [1] as in gemm_u8s8.h, bias s32 [C] or null, scale f32 [C], Y,
  // residual or null.
  StepFn run;
};
DepthwiseBytesKernel depthwise_bytes(Isa);

// The faster form, for W of s8 without zero points and windows of at most 8 kernel rows: args as above, but W packed
// and scale times row scale in one.
struct DepthwiseU8S8Kernel {
  const char* name;
  int block;
  StepFn run;
};
DepthwiseU8S8Kernel depthwise_u8s8(Isa);
// Packed W: [blocks of channels][ceil(rows / 4)][width][4][block / 4][4] bytes, channels up to a multiple of 64; its
// size does not depend on the block. W is [C, rows, width].
struct DepthwiseU8S8Pack {
  int64_t channels, rows, width;
  int block;
};
constexpr int64_t kDepthwiseU8S8Rows = 8;
size_t packed_bytes(const DepthwiseU8S8Pack&);
void depthwise_u8s8_pack(const DepthwiseU8S8Pack&, const int8_t* w, int8_t* packed);
void depthwise_u8s8_unpack(const DepthwiseU8S8Pack&, const int8_t* packed, int8_t* w);

struct DepthwiseBytesPack {
  int64_t channels = 0, taps = 0;
  bool is_signed = false;
  int64_t zeros = 0;  // number of zero points: 0, 1 or channels
};
// args: W [C, taps], zero points or null, packed s16 [taps, C].
Status depthwise_bytes_pack_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
