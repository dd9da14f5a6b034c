// SPDX-License-Identifier: Apache-2.0
// The kernels on emulated threads: rows and zeros where they belong, nothing else touched, for accesses of every width,
// with empty sequences and sequences of several blocks.
#include <numeric>

#include "kernel.inc"

using namespace fi;

bool differs(const std::vector<int>& lengths, int extent, int row, int shift, bool unpack) {
  const int sequences = static_cast<int>(lengths.size()), total = std::accumulate(lengths.begin(), lengths.end(), 0);
  Array<int32_t> offsets(sequences + 1);
  offsets[0] = 0;
  for (int s = 0; s < sequences; ++s) offsets[s + 1] = offsets[s] + lengths[s];
  Array<uint8_t> padded(size_t(sequences) * extent * row + shift), packed(size_t(total) * row + shift);
  for (size_t i = 0; i < padded.size; ++i) padded[i] = static_cast<uint8_t>(unpack ? 0xee : i * 7 + i / 251);
  for (size_t i = 0; i < packed.size; ++i) packed[i] = static_cast<uint8_t>(unpack ? i * 7 + i / 251 : 0xee);
  uint8_t *from = (unpack ? packed.data : padded.data) + shift, *to = (unpack ? padded.data : packed.data) + shift;
  const Ragged r{from, to, offsets.data, sequences, extent, total, row};
  unpack ? unpack_ragged(r, nullptr) : pack_ragged(r, nullptr);
  int wrong = 0;
  for (int s = 0; s < sequences; ++s)
    for (int i = 0; i < extent * row; ++i) {
      const uint8_t in = padded[shift + size_t(s) * extent * row + i];
      if (i < lengths[s] * row)
        wrong += in != packed[shift + size_t(offsets[s]) * row + i];
      else if (unpack)
        wrong += in != 0;
    }
  for (int i = 0; i < shift; ++i) wrong += unpack ? padded[i] != 0xee : packed[i] != 0xee;
  printf("%d sequences, %d rows of %d bytes, width %d, %s: %d wrong\n", sequences, total, row, ragged_width(r),
         unpack ? "unpack" : "pack", wrong);
  return wrong > 0;
}

int main() {
  bool failed = false;
  for (const bool unpack : {false, true}) {
    failed |= differs({3, 0, 5, 1}, 5, 64, 0, unpack);
    failed |= differs({1}, 1, 8, 0, unpack);
    failed |= differs({0, 0, 7}, 7, 1040, 0, unpack);
    failed |= differs({40, 2, 33}, 40, 1536, 16, unpack);  // several blocks a sequence
    failed |= differs({2, 3}, 3, 6, 0, unpack);
    failed |= differs({2, 3}, 4, 12, 4, unpack);
    failed |= differs({2, 0, 3}, 4, 7, 1, unpack);
  }
  return failed;
}
