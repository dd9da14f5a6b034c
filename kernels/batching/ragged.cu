// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/launch.h"
#include "kernels/batching/ragged.cuh"

namespace fi {
namespace {

constexpr int kThreads = 256;
constexpr int kTogether = 4;  // loads in flight per thread: 256 * 4 * 16 bytes = 16 KiB a block, 8 blocks an SM
constexpr int64_t kMaxY = 65535;

// Block x of a sequence moves bytes [x, x + 1) * kThreads * kTogether * sizeof(V); y walks over sequences.
template <class V, bool kPack>
__global__ void __launch_bounds__(kThreads) ragged_kernel(const __grid_constant__ Ragged r) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads * kTogether + threadIdx.x) * sizeof(V);
  for (int64_t s = blockIdx.y; s < r.sequences; s += gridDim.y) {
    const RaggedPiece piece = ragged_piece(r, s, r.offsets[s], r.offsets[s + 1]);
    const char* from = static_cast<const char*>(r.from) + (kPack ? piece.padded : piece.packed);
    char* to = static_cast<char*>(r.to) + (kPack ? piece.packed : piece.padded);
    const int64_t end = kPack ? piece.bytes : r.extent * r.row_bytes;
    V v[kTogether] = {};
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int64_t at = first + static_cast<int64_t>(i) * kThreads * sizeof(V);
      if (at < piece.bytes) v[i] = *reinterpret_cast<const V*>(from + at);
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int64_t at = first + static_cast<int64_t>(i) * kThreads * sizeof(V);
      if (at < end) *reinterpret_cast<V*>(to + at) = v[i];
    }
  }
}

template <class V, bool kPack>
void run(const Ragged& r, void* stream) {
  const int64_t block = static_cast<int64_t>(kThreads) * kTogether * sizeof(V), bytes = r.extent * r.row_bytes;
  const int64_t x = (bytes + block - 1) / block;
  const char* name = kPack ? "pack_ragged" : "unpack_ragged";
  check(x < int64_t{1} << 31, name, ": a sequence of ", bytes, " bytes");
  launch(ragged_kernel<V, kPack>, r,
         {dim3(static_cast<unsigned>(x), static_cast<unsigned>(r.sequences < kMaxY ? r.sequences : kMaxY)),
          dim3(kThreads), 0, 1, stream},
         name, ": ", r.sequences, " sequences of at most ", r.extent, " rows of ", r.row_bytes, " bytes, ", r.total,
         " in all");
}

template <bool kPack>
void run(const Ragged& r, void* stream) {
  check(r.sequences >= 0 && r.extent >= 0 && r.total >= 0 && r.row_bytes >= 0, "ragged: negative extents");
  if (r.sequences == 0 || r.extent * r.row_bytes == 0) return;
  switch (ragged_width(r)) {
    case 16:
      return run<uint4, kPack>(r, stream);
    case 8:
      return run<uint2, kPack>(r, stream);
    case 4:
      return run<uint32_t, kPack>(r, stream);
    case 2:
      return run<uint16_t, kPack>(r, stream);
    default:
      return run<uint8_t, kPack>(r, stream);
  }
}

}  // namespace

void pack_ragged(const Ragged& r, void* stream) { run<true>(r, stream); }
void unpack_ragged(const Ragged& r, void* stream) { run<false>(r, stream); }

}  // namespace fi
