// SPDX-License-Identifier: Apache-2.0
// The kernel on emulated threads must give the bits of wna16_on_host, which test_wna16.py compares with float64.
#include <random>

#include "kernel.inc"
#include "wna16_host.inc"

using namespace fi;

struct Case {
  int m, n, k, block_shift, warps, split;
  bool zeros;
  int bits = 4;
};

static std::vector<char> given;  // A, which the launch before writes
static void* where;

template <class D>
bool differs(const Case& c) {
  using T = typename D::Type;
  std::mt19937 random(c.m + c.n + c.k);
  const auto number = [&] { return static_cast<float>(random() % 2001) / 1000.0f - 1.0f; };
  const WnExtents x = wn_extents(c.n, c.k, c.bits, c.block_shift);
  const int blocks = (c.k + (1 << c.block_shift) - 1) >> c.block_shift;
  Array<uint8_t> q((size_t(c.n) * blocks << c.block_shift) * c.bits / 8),
      zeros(size_t(c.n) * ((blocks * c.bits + 7) / 8));
  Array<float> scales(size_t(c.n) * blocks), a32(size_t(c.m) * c.k), bias32(c.n), y32(size_t(c.m) * c.n);
  Array<T> a(a32.size), bias(bias32.size), y(y32.size);
  Array<uint32_t> weights(x.weight_words()), meta(x.meta_words());
  for (size_t i = 0; i < q.size; ++i) q[i] = static_cast<uint8_t>(random());
  for (size_t i = 0; i < zeros.size; ++i) zeros[i] = static_cast<uint8_t>(random());
  for (size_t i = 0; i < scales.size; ++i) scales[i] = 0.01f + 0.1f * fabsf(number());
  for (size_t i = 0; i < a.size; ++i) a32[i] = static_cast<float>(a[i] = T(number()));
  for (size_t i = 0; i < bias.size; ++i) bias32[i] = static_cast<float>(bias[i] = T(number()));
  for (size_t i = 0; i < y.size; ++i) y[i] = T(12345.0f);
  wn_shuffle(c.n, c.k, c.bits, c.block_shift, q.data, weights.data);
  wn_shuffle_meta(c.n, c.k, c.bits, c.block_shift, scales.data, c.zeros ? zeros.data : nullptr, meta.data);
  given.assign(reinterpret_cast<char*>(a.data), reinterpret_cast<char*>(a.data + a.size));
  where = a.data;
  memset(where, 0xff, given.size());
  previous = [] { memcpy(where, given.data(), given.size()); };
  WnA16 p{a.data,
          weights.data,
          meta.data,
          bias.data,
          y.data,
          c.m,
          c.n,
          c.k,
          c.bits,
          c.block_shift,
          std::is_same_v<D, WnBFloat>,
          c.warps,
          c.split};
  wna16(p, nullptr);
  p.a = a32.data, p.bias = bias32.data, p.y = y32.data;
  wna16_on_host(p);
  int wrong = 0;
  for (size_t i = 0; i < y.size; ++i) wrong += !(static_cast<float>(y[i]) == static_cast<float>(T(y32[i])));
  printf("%d bits m %d n %d k %d block %d warps %d split %d: %d of %zu differ\n", c.bits, c.m, c.n, c.k,
         1 << c.block_shift, c.warps, c.split, wrong, y.size);
  return wrong > 0;
}

int main() {
  bool failed = false;
  for (const bool eager : {false, true}) {
    eager_copies = eager;
    failed |= differs<WnHalf>({1, 40, 200, 5, 1, 1, true});      // k no multiple of a chunk
    failed |= differs<WnHalf>({3, 100, 1472, 7, 2, 2, true});    // pieces that begin inside a block
    failed |= differs<WnBFloat>({9, 70, 1216, 5, 4, 1, false});  // three pieces of A, warps without columns
    failed |= differs<WnHalf>({16, 33, 2560, 10, 1, 2, true});   // a block that is longer than a piece
    failed |= differs<WnBFloat>({17, 32, 1000, 6, 1, 3, true});  // two tiles of rows
    failed |= differs<WnBFloat>({2, 64, 768, 12, 2, 8, true});
    failed |= differs<WnHalf>({5, 32, 24, 5, 1, 8, true});  // ranks without chunks
    failed |= differs<WnHalf>({3, 70, 1344, 5, 2, 1, true, 8});
    failed |= differs<WnBFloat>({9, 33, 1216, 7, 1, 2, true, 8});
    failed |= differs<WnBFloat>({2, 32, 712, 12, 1, 3, false, 8});  // channel-wise
  }
  return failed;
}
