// SPDX-License-Identifier: Apache-2.0
// Enough of a device to run kernels' own source on host threads: a thread per CUDA thread, barriers for blocks, warps
// and clusters. cp.async either happens as late as wait_group allows (what is read too early is poison) or at once
// (what is overwritten too early is gone).
#pragma once
#include <cuda_runtime.h>
#include <math.h>

#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "csrc/base/error.h"

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#define EMULATED_ASM(...) static_cast<void>(0)  // prefetches

inline bool eager_copies = false;

struct Warp_ {
  std::barrier<> barrier{32};
  float rows[16][16], columns[16][8], lanes[32];
};
struct Block_ {
  std::vector<char> shared;
  std::unique_ptr<std::barrier<>> barrier;
  std::vector<std::unique_ptr<Warp_>> warps;
};
struct Cluster_ {
  std::vector<Block_> blocks;
  std::unique_ptr<std::barrier<>> barrier;
};
struct Copy_ {
  void* to;
  const void* from;
  bool valid;
  void run() const { valid ? memcpy(to, from, 16) : memset(to, 0, 16); }
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
inline thread_local Cluster_* cluster_;
inline thread_local Block_* block_;
inline thread_local Warp_* warp_;
inline thread_local std::deque<std::vector<Copy_>> groups_;
inline thread_local std::vector<Copy_> open_;

inline void require(bool ok, const char* what) {
  if (ok) return;
  fprintf(stderr, "%s\n", what);
  abort();
}

inline void __syncthreads() { block_->barrier->arrive_and_wait(); }
inline float __uint_as_float(unsigned bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
inline float __shfl_xor_sync(unsigned, float v, int mask) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  warp_->lanes[lane] = v;
  warp_->barrier.arrive_and_wait();
  const float other = warp_->lanes[lane ^ mask];
  warp_->barrier.arrive_and_wait();
  return other;
}

namespace cooperative_groups {
struct cluster_group {
  void sync() { cluster_->barrier->arrive_and_wait(); }
  template <class T>
  T* map_shared_rank(T* p, int rank) {
    return reinterpret_cast<T*>(cluster_->blocks[rank].shared.data() +
                                (reinterpret_cast<char*>(p) - block_->shared.data()));
  }
};
inline cluster_group this_cluster() { return {}; }
}  // namespace cooperative_groups

inline void copy_async(void* to, const void* from, bool valid = true) {
  const char *at = static_cast<char*>(to), *shared = block_->shared.data();
  require(at >= shared && at + 16 <= shared + block_->shared.size(), "cp.async outside shared memory");
  require(((at - shared) | (valid ? reinterpret_cast<intptr_t>(from) : 0)) % 16 == 0, "cp.async: not aligned to 16");
  const Copy_ copy{to, from, valid};
  eager_copies ? copy.run() : open_.push_back(copy);
}
inline uint64_t once_policy() { return 0; }
inline void copy_once(void* to, const void* from, uint64_t) { copy_async(to, from); }
inline void prefetch(const void*) {}
inline void commit() {
  groups_.push_back(open_);
  open_.clear();
}
template <int N>
void wait_but() {
  for (; static_cast<int>(groups_.size()) > N; groups_.pop_front())
    for (const Copy_& copy : groups_.front()) copy.run();
}

// mma.m16n8k16, fragments as the PTX manual has them.
template <class D>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
  for (int e = 0; e < 2; ++e) {
    for (int i = 0; i < 4; ++i) warp_->rows[g + i % 2 * 8][2 * t + e + i / 2 * 8] = D::value(a[i], e);
    warp_->columns[2 * t + e][g] = D::value(b0, e);
    warp_->columns[2 * t + 8 + e][g] = D::value(b1, e);
  }
  warp_->barrier.arrive_and_wait();
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) c[i] += warp_->rows[g + i / 2 * 8][k] * warp_->columns[k][2 * t + i % 2];
  warp_->barrier.arrive_and_wait();
}

namespace fi {

struct Launch {
  dim3 grid, block;
  unsigned shared = 0, cluster = 1;
  void* stream = nullptr;
  bool early = false;
};

// What launches before this one write is there from the first wait on: `previous` writes it.
inline void (*previous)() = [] {};
inline std::unique_ptr<std::once_flag> previous_ran;
inline void let_next_begin() {}
inline bool early_ = false;
inline void wait_for_previous() {
  require(early_, "a kernel that waits for the launch before it must be launched so");
  std::call_once(*previous_ran, previous);
}

template <class P>
void run_cluster(void (*kernel)(P), const P& p, const Launch& l, dim3 first) {
  Cluster_ cluster;
  cluster.blocks.resize(l.cluster);
  cluster.barrier = std::make_unique<std::barrier<>>(l.cluster * l.block.x);
  for (Block_& b : cluster.blocks) {
    b.shared.assign(l.shared, static_cast<char>(0xff));  // NaN
    b.barrier = std::make_unique<std::barrier<>>(l.block.x);
    for (unsigned w = 0; w < l.block.x / 32; ++w) b.warps.push_back(std::make_unique<Warp_>());
  }
  std::vector<std::thread> threads;
  for (unsigned rank = 0; rank < l.cluster; ++rank)
    for (unsigned t = 0; t < l.block.x; ++t)
      threads.emplace_back([&, rank, t] {
        threadIdx = dim3(t), blockIdx = dim3(first.x + rank, first.y, first.z), blockDim = l.block, gridDim = l.grid;
        cluster_ = &cluster, block_ = &cluster.blocks[rank], warp_ = block_->warps[t / 32].get();
        kernel(p);
      });
  for (std::thread& t : threads) t.join();
}

template <class P, class... Args>
void launch(void (*kernel)(P), const P& p, const Launch& l, const Args&...) {
  early_ = l.early;
  previous_ran = std::make_unique<std::once_flag>();
  for (unsigned z = 0; z < l.grid.z; ++z)
    for (unsigned y = 0; y < l.grid.y; ++y)
      for (unsigned x = 0; x < l.grid.x; x += l.cluster) run_cluster(kernel, p, l, dim3(x, y, z));
}

}  // namespace fi

// Memory of its own for each tensor, aligned as a device's, so that the sanitizer sees what lies outside.
template <class T>
struct Array {
  explicit Array(size_t n) : size(n), data(static_cast<T*>(aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64))) {}
  ~Array() { free(data); }
  Array(const Array&) = delete;
  T& operator[](size_t i) { return data[i]; }
  size_t size;
  T* data;
};
