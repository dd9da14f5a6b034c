// SPDX-License-Identifier: Apache-2.0
// The kernel on emulated threads must give nearly the numbers of mlp_on_host (whose lanes take four numbers at a time
// whatever the type), which test_mlp.py compares with float64; in float32 the very bits.
#include <random>

#include "kernel.inc"

using namespace fi;

template <class T>
bool differs(MlpType type, int m, const std::vector<int>& widths, float limit) {
  std::mt19937 random(m);
  const auto number = [&] { return static_cast<float>(random() % 2001) / 1000.0f - 1.0f; };
  std::vector<std::unique_ptr<Array<T>>> kept;
  std::vector<std::unique_ptr<Array<float>>> kept32;
  Mlp p, host;
  const auto tensor = [&](size_t n, float scale, const void** at, const void** at32) {
    kept.push_back(std::make_unique<Array<T>>(n)), kept32.push_back(std::make_unique<Array<float>>(n));
    for (size_t i = 0; i < n; ++i) (*kept32.back())[i] = static_cast<float>((*kept.back())[i] = T(scale * number()));
    *at = kept.back()->data, *at32 = kept32.back()->data;
  };
  p.m = m, p.type = type, p.count = static_cast<int>(widths.size()) - 1;
  host = p;
  host.type = MlpType::f32;
  tensor(size_t(m) * widths[0], 1, &p.x, &host.x);
  for (int l = 0; l < p.count; ++l) {
    const int in = widths[l], out = widths[l + 1], ld = mlp_padded(in);
    MlpLayer &layer = p.layers[l], &layer32 = host.layers[l];
    layer.in = in, layer.out = out, layer.act = static_cast<MlpAct>(l % 6);
    layer32 = layer;
    tensor(size_t(out) * ld, 2.0f / sqrtf(static_cast<float>(in)), &layer.weights, &layer32.weights);
    for (int o = 0; o < out; ++o)
      for (int i = in; i < ld; ++i)
        (*kept.back())[size_t(o) * ld + i] = T(0.0f), (*kept32.back())[size_t(o) * ld + i] = 0;
    if (l % 3 != 1) tensor(out, 1, &layer.bias, &layer32.bias);
  }
  Array<T> y(size_t(m) * widths.back());
  Array<float> y32(y.size);
  for (size_t i = 0; i < y.size; ++i) y[i] = T(12345.0f);
  p.y = y.data, host.y = y32.data;
  mlp(p, nullptr);
  mlp_on_host(host);
  float worst = 0;
  for (size_t i = 0; i < y.size; ++i) {
    const float error = fabsf(static_cast<float>(y[i]) - y32[i]) / (1 + fabsf(y32[i]));
    if (!(error <= worst)) worst = error;
  }
  printf("type %d, m %d, %d layers, %d blocks: worst %g\n", static_cast<int>(type), m, p.count, mlp_blocks(p), worst);
  return !(worst <= limit);
}

int main() {
  bool failed = false;
  failed |= differs<float>(MlpType::f32, 1, {13, 64, 5}, 2e-6f);
  failed |= differs<float>(MlpType::f32, 11, {20, 70, 33, 9, 4}, 2e-6f);
  failed |= differs<__half>(MlpType::f16, 9, {300, 40, 3}, 1e-3f);
  failed |= differs<__nv_bfloat16>(MlpType::bf16, 2, {8, 1, 130, 8}, 8e-3f);
  return failed;
}
