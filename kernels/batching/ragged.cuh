// SPDX-License-Identifier: Apache-2.0
// Batches with and without padding, [sequences, extent, f] and [total, f]:
//   pack:   packed[offsets[s] + i] = padded[s, i]              for i < offsets[s + 1] - offsets[s]
//   unpack: padded[s, i] = packed[offsets[s] + i], and 0 from the sequence's end on
// A sequence is one piece of memory in both, so a launch is `sequences` copies, whatever the element type. The bound is
// memory: every byte is read once and written once. 16 bytes a thread where addresses and rows allow it, four such
// loads before the first store. Offsets are on the device (int32) and only read there, so one CUDA graph serves all
// lengths of a bucket; offsets that lie outside are clamped, as nothing on the host has seen them.
#pragma once
#include <cstdint>

#include "csrc/base/host_device.h"

namespace fi {

struct Ragged {
  const void* from = nullptr;
  void* to = nullptr;
  const int32_t* offsets = nullptr;  // [sequences + 1]
  int64_t sequences = 0, extent = 0, total = 0, row_bytes = 0;
};

// Where a sequence lies, in bytes.
struct RaggedPiece {
  int64_t padded, packed, bytes;
};

FI_HD RaggedPiece ragged_piece(const Ragged& r, int64_t sequence, int64_t begin, int64_t end) {
  begin = begin < 0 ? 0 : begin < r.total ? begin : r.total;
  const int64_t room = r.total - begin < r.extent ? r.total - begin : r.extent;
  const int64_t length = end < begin ? 0 : end - begin < room ? end - begin : room;
  return {sequence * r.extent * r.row_bytes, begin * r.row_bytes, length * r.row_bytes};
}

// The widest access that addresses and rows allow: 16, 8, 4, 2 or 1 bytes.
inline int ragged_width(const Ragged& r) {
  const uint64_t all =
      reinterpret_cast<uintptr_t>(r.from) | reinterpret_cast<uintptr_t>(r.to) | static_cast<uint64_t>(r.row_bytes) | 16;
  return static_cast<int>(all & (~all + 1));
}

void pack_ragged(const Ragged&, void* stream);
void unpack_ragged(const Ragged&, void* stream);

}  // namespace fi
