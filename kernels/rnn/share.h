// SPDX-License-Identifier: Apache-2.0
// One recurrence shared by several threads. Its stages (time steps) follow one another; the hidden units of a stage are
// cut in ranges, one per participant. A participant claims its own range of a stage and then waits for the others'
// ranges; one whose owner has not come, or is off its core, it claims too. A claimed range always belongs to a thread
// that is inside the step, so nobody waits for a participant that never comes: one thread alone does everything, in
// whatever order the parts are called. Who did a range never changes its bits.
#pragma once
#include <sched.h>

#include <atomic>
#include <cstdint>

namespace fi {

// Zeroed before the step. What the owner alone touches in the usual course lies apart from what the others poll.
struct alignas(64) RnnTurn {
  std::atomic<int64_t> claimed;  // stages of this range that somebody has begun
  alignas(64) std::atomic<int64_t> done;
  std::atomic<int32_t> here;  // the owner has come
};

class RnnShare {
 public:
  RnnShare(void* turns, int n, int own) : turns_(static_cast<RnnTurn*>(turns)), n_(n), own_(own) {
    if (n_ > 1) turns_[own_].here.store(1, std::memory_order_relaxed);
  }

  // Calls work(range) until all ranges of the next stage are done, by whoever.
  template <class F>
  void stage(F work) {
    if (n_ == 1) return work(0);
    if (!turns_[own_].here.load(std::memory_order_relaxed)) turns_[own_].here.store(1, std::memory_order_relaxed);
    attempt(own_, work);
    for (int i = 0; i < n_; ++i) await((own_ + i) % n_, work);
    ++stage_;
  }

 private:
  // A few us: longer than a stage. Who lost it marks the owner as absent until that comes back, so that an owner who is
  // off its core costs this once and not at every stage.
  static constexpr int kPatience = 300;

  template <class F>
  bool attempt(int range, F work) {
    int64_t expected = stage_;
    if (!turns_[range].claimed.compare_exchange_strong(expected, stage_ + 1, std::memory_order_acq_rel)) return false;
    work(range);
    turns_[range].done.store(stage_ + 1, std::memory_order_release);
    return true;
  }
  template <class F>
  void await(int range, F work) {
    RnnTurn& turn = turns_[range];
    for (int spins = 0; turn.done.load(std::memory_order_acquire) <= stage_; ++spins) {
      if (spins == kPatience) turn.here.store(0, std::memory_order_relaxed);
      const bool absent = !turn.here.load(std::memory_order_relaxed) || spins > kPatience;
      if (absent && turn.claimed.load(std::memory_order_relaxed) == stage_ && attempt(range, work)) return;
      if (spins > kPatience)
        sched_yield();
      else if (spins > 64)
        pause();
    }
  }
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  RnnTurn* turns_;
  int n_, own_;
  int64_t stage_ = 0;
};

}  // namespace fi
