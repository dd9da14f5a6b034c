// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/depthwise_bytes.h"

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/depthwise/kernels_bytes.inc"
#undef FI_KERNEL

DepthwiseBytesKernel depthwise_bytes(Isa isa) {
  struct Row {
    Isa isa;
    DepthwiseBytesKernel kernel;
  };
  static const Row rows[] = {
#define FI_KERNEL(isa, symbol) {Isa::isa, {#symbol "_" #isa, &isa::symbol}},
#include "kernels/depthwise/kernels_bytes.inc"
#undef FI_KERNEL
  };
  const Row* row = rows;
  while (row->isa > isa) ++row;
  return row->kernel;
}

Status depthwise_bytes_pack_step(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const DepthwiseBytesPack*>(params);
  auto value = [&](const void* data, int64_t i) {
    return p.is_signed ? static_cast<const int8_t*>(data)[i] : static_cast<const uint8_t*>(data)[i];
  };
  auto* out = static_cast<int16_t*>(args[2]);
  for (int64_t c = 0; c < p.channels; ++c) {
    const int zero = p.zeros ? value(args[1], p.zeros == 1 ? 0 : c) : 0;
    for (int64_t t = 0; t < p.taps; ++t)
      out[t * p.channels + c] = static_cast<int16_t>(value(args[0], c * p.taps + t) - zero);
  }
  return Status::ok;
}

}  // namespace fi
