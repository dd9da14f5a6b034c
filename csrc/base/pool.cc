// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "csrc/base/error.h"

namespace fi {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void futex_wait(std::atomic<uint32_t>* word, uint32_t seen) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// About 30 us of pauses (a pause is roughly 10-40 ns on the cores we know): longer than the gap between two steps,
// short against a scheduler slice, so that an idle model does not burn a core.
constexpr int kSpins = 1500;

// Which index was wrong: a step notes it on its own thread, run_parts carries it to the caller's.
struct IndexFault {
  int64_t index = 0, low = 0, high = 0;
};
thread_local IndexFault t_fault;

struct Job {
  StepFn fn;
  const void* params;
  void* const* args;
  int parts, threads;
};

// A worker has its own cache line for the command and for the answer; the job itself is copied per worker, because
// lines that both cores touch cost up to half of the throughput on small tiles (KERNELS.md §0b).
struct alignas(128) Worker {
  std::atomic<uint32_t> ticket{0};  // bumped by the caller: there is a job
  std::atomic<bool> parked{false};
  Job job{};
  alignas(128) std::atomic<uint32_t> done{0};  // follows ticket
  Status status = Status::ok;
  IndexFault fault;
  std::thread thread;
};

Status run_share(const Job& job, int thread) {
  Status first = Status::ok;
  IndexFault fault;
  for (int p = thread; p < job.parts; p += job.threads) {
    const Status s = job.fn(job.params, job.args, p, job.parts);
    if (s == Status::ok || first != Status::ok) continue;
    first = s;
    fault = t_fault;
  }
  if (first != Status::ok) t_fault = fault;
  return first;
}

class Pool {
 public:
  std::mutex busy;

  Worker& worker(int i) {
    while (static_cast<int>(workers_.size()) <= i) {
      auto w = std::make_unique<Worker>();
      Worker* raw = w.get();
      const int index = static_cast<int>(workers_.size()) + 1;
      raw->thread = std::thread([raw, index] { loop(*raw, index); });
      raw->thread.detach();
      workers_.push_back(std::move(w));
    }
    return *workers_[i];
  }

 private:
  static void loop(Worker& w, int index) {
    uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      while (w.ticket.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          relax();
          continue;
        }
        w.parked.store(true, std::memory_order_seq_cst);
        if (w.ticket.load(std::memory_order_seq_cst) == seen) futex_wait(&w.ticket, seen);
        w.parked.store(false, std::memory_order_relaxed);
      }
      ++seen;
      w.status = run_share(w.job, index);
      if (w.status != Status::ok) w.fault = t_fault;
      w.done.store(seen, std::memory_order_release);
    }
  }
  std::vector<std::unique_ptr<Worker>> workers_;
};

Pool* g_pool = nullptr;
std::mutex g_guard;

// The pool is never destroyed: its detached workers may outlive main(). In a forked child the parent's workers do not
// exist and its locks may be held, so the child simply makes a new pool.
Pool& pool() {
  static const int hook = pthread_atfork(nullptr, nullptr, [] {
    g_pool = nullptr;
    new (&g_guard) std::mutex;
  });
  (void)hook;
  static thread_local Pool* cached = nullptr;
  if (cached && cached == g_pool) return *cached;
  std::lock_guard lock(g_guard);
  if (!g_pool) g_pool = new Pool;
  cached = g_pool;
  return *g_pool;
}

}  // namespace

Status bad_index(int64_t index, int64_t low, int64_t high) {
  t_fault = {index, low, high};
  return Status::index_out_of_range;
}

std::string describe(Status s) {
  switch (s) {
    case Status::ok:
      return "ok";
    case Status::index_out_of_range:
      if (t_fault.low >= t_fault.high)
        return words("index ", t_fault.index, " is out of range: there is nothing to index");
      return words("index ", t_fault.index, " is out of range; needed: ", t_fault.low, " to ", t_fault.high - 1);
    case Status::division_by_zero:
      return "integer division by zero";
    case Status::bad_value:
      return "a value is outside what the operator allows";
  }
  return "unknown status";
}

Status run_parts(StepFn fn, const void* params, void* const* args, int parts, int threads) {
  if (threads > parts) threads = parts;
  Job job{fn, params, args, parts, threads < 1 ? 1 : threads};
  if (job.threads == 1) return run_share(job, 0);
  Pool& p = pool();
  std::unique_lock lock(p.busy, std::try_to_lock);
  if (!lock.owns_lock()) {
    job.threads = 1;
    return run_share(job, 0);
  }
  for (int t = 1; t < job.threads; ++t) {
    Worker& w = p.worker(t - 1);
    w.job = job;
    w.ticket.fetch_add(1, std::memory_order_seq_cst);
    if (w.parked.load(std::memory_order_seq_cst)) futex_wake(&w.ticket);
  }
  Status first = run_share(job, 0);
  for (int t = 1; t < job.threads; ++t) {
    Worker& w = p.worker(t - 1);
    const uint32_t want = w.ticket.load(std::memory_order_relaxed);
    for (int spins = 0; w.done.load(std::memory_order_acquire) != want;)
      if (++spins < 20000)
        relax();
      else
        std::this_thread::yield();
    if (first == Status::ok && w.status != Status::ok) {
      first = w.status;
      t_fault = w.fault;
    }
  }
  return first;
}

}  // namespace fi
