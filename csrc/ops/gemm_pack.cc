// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/gemm_pack.h"

#include <cstdio>

namespace fi {

Packing gemm_packing(const GemmF32& kernel, const Shape& b, bool transposed) {
  const bool vector = b.rank() == 1;
  int64_t k = vector ? b[0] : b[b.rank() - 2], n = vector ? 1 : b.back();
  const int64_t matrices = vector ? 1 : b.elements(0, b.rank() - 2);
  transposed = transposed && !vector;
  if (transposed) std::swap(k, n);
  const int64_t stride_k = transposed ? 1 : n, stride_n = transposed ? k : 1;
  const std::string rest = words("_k", k, "_n", n, transposed ? "_t" : "", "_b", matrices);
  const GemmPanels panels{1, k, n, kernel.nr};

  Packing how;
  how.layout = words("gemm_f32_nr", kernel.nr, rest);
  how.bytes = static_cast<size_t>(matrices * packed_floats(panels)) * sizeof(float);
  how.pack = [=, &kernel](const Tensor& dense, void* packed) {
    for (int64_t i = 0; i < matrices; ++i)
      gemm_f32_pack(kernel, panels, dense.as<float>() + i * k * n, 0, stride_k, stride_n,
                    static_cast<float*>(packed) + i * packed_floats(panels));
  };
  how.unpack = [=](const std::string& layout, const void* packed, void* dense) {
    GemmPanels from = panels;
    // nr a multiple of 16 keeps the size of the packed form, whatever it is.
    check_model(std::sscanf(layout.c_str(), "gemm_f32_nr%d", &from.nr) == 1 && from.nr > 0 && from.nr % 16 == 0 &&
                    layout == words("gemm_f32_nr", from.nr, rest),
                "packed layout '", layout, "' is not one of gemm_f32_nr*", rest);
    for (int64_t i = 0; i < matrices; ++i)
      gemm_f32_unpack(from, static_cast<const float*>(packed) + i * packed_floats(from),
                      static_cast<float*>(dense) + i * k * n, 0, stride_k, stride_n);
  };
  return how;
}

}  // namespace fi
