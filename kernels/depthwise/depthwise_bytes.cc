// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/depthwise_bytes.h"

#include <cstring>

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/depthwise/kernels_bytes.inc"
#undef FI_KERNEL

#define FI_KERNEL(isa, symbol, block)                 \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/depthwise/kernels_u8s8.inc"
#undef FI_KERNEL

DepthwiseU8S8Kernel depthwise_u8s8(Isa isa) {
  struct Row {
    Isa isa;
    DepthwiseU8S8Kernel kernel;
  };
  static const Row rows[] = {
#define FI_KERNEL(isa, symbol, block) {Isa::isa, {#symbol "_" #isa, block, &isa::symbol}},
#include "kernels/depthwise/kernels_u8s8.inc"
#undef FI_KERNEL
  };
  const Row* row = rows;
  while (row->isa > isa) ++row;
  return row->kernel;
}

size_t packed_bytes(const DepthwiseU8S8Pack& p) {
  return static_cast<size_t>((p.channels + 63) / 64 * 64 * ((p.rows + 3) / 4) * p.width * 4);
}

// f(place of W, place of packed W)
template <class F>
static void each_weight(const DepthwiseU8S8Pack& p, F f) {
  const int64_t groups = (p.rows + 3) / 4;
  for (int64_t c = 0; c < p.channels; ++c) {
    const int64_t in = c % p.block, q = in % 16 / 4, lane = in / 16 * 4 + in % 4;
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t k = 0; k < p.width; ++k) {
        const int64_t quadruple = ((c / p.block * groups + r / 4) * p.width + k) * 4 + q;
        f((c * p.rows + r) * p.width + k, quadruple * p.block + lane * 4 + r % 4);
      }
  }
}

void depthwise_u8s8_pack(const DepthwiseU8S8Pack& p, const int8_t* w, int8_t* packed) {
  std::memset(packed, 0, packed_bytes(p));
  each_weight(p, [&](int64_t from, int64_t to) { packed[to] = w[from]; });
}

void depthwise_u8s8_unpack(const DepthwiseU8S8Pack& p, const int8_t* packed, int8_t* w) {
  each_weight(p, [&](int64_t to, int64_t from) { w[to] = packed[from]; });
}

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
