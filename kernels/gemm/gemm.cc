// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/gemm.h"

namespace fi {

#define FI_KERNEL(isa, symbol, mr, nr)                                                   \
  namespace isa {                                                                        \
  void symbol(const GemmTile&);                                                          \
  void rows_##symbol(const GemmTile&);                                                   \
  void interleave_##symbol(const float*, int64_t, int64_t, int64_t, float*);             \
  void pack_##symbol(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, float*); \
  }
#include "kernels/gemm/kernels.inc"
#undef FI_KERNEL

const GemmF32& gemm_f32(Isa isa) {
  static const GemmF32 rows[] = {
#define FI_KERNEL(isa, symbol, mr, nr)                                                                 \
  {#symbol "_" #isa,         Isa::isa, mr, nr, &isa::symbol, &isa::rows_##symbol, &isa::pack_##symbol, \
   &isa::interleave_##symbol},
#include "kernels/gemm/kernels.inc"
#undef FI_KERNEL
  };
  const GemmF32* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return *row;
}

void gemm_f32_pack(const GemmF32& kernel, const GemmPanels& p, const float* b, int64_t stride_t, int64_t stride_k,
                   int64_t stride_n, float* packed) {
  for (int64_t i = 0; i < panel_count(p); ++i)
    for (int64_t t = 0; t < p.taps; ++t)
      kernel.pack_panel(b + t * stride_t + i * p.nr * stride_n, stride_k, stride_n, p.k, panel_cols(p, i),
                        panel_width(p, i), packed + panel_offset(p, i) + t * p.k * panel_width(p, i));
}

void gemm_f32_unpack(const GemmPanels& p, const float* packed, float* b, int64_t stride_t, int64_t stride_k,
                     int64_t stride_n) {
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t i = n / p.nr;
    const float* column = packed + panel_offset(p, i) + n % p.nr;
    for (int64_t t = 0; t < p.taps; ++t)
      for (int64_t k = 0; k < p.k; ++k)
        b[t * stride_t + k * stride_k + n * stride_n] = column[(t * p.k + k) * panel_width(p, i)];
  }
}

}  // namespace fi
