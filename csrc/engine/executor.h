// SPDX-License-Identifier: Apache-2.0
// Runs a Program: finds or makes the plan for the shapes at hand and walks it. Many threads may run one Executor.
#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "csrc/engine/plan.h"

namespace fi {

struct StepTime {
  int node;
  const char* kernel;
  int64_t start_ns, ns;
  double flops;
  int depth;          // 0: the model itself, 1: a subprogram it runs, ...
  std::string label;  // node name and operator
  int visit, step;    // of Profile::visits; of its segment's steps, -1 for the operator that ends it
};
// What a run did: the time of every step, and the segments it walked (for explain()).
struct Profile {
  struct Visit {
    std::shared_ptr<const Program> program;
    std::shared_ptr<Segment> segment;
    int depth;
  };
  std::vector<StepTime> steps;
  std::vector<Visit> visits;
};

// Free arenas, reused between runs and shared by the plans of one program.
class ArenaPool {
 public:
  struct Arena {
    std::shared_ptr<void> memory;
    size_t bytes = 0;
  };
  Arena take(size_t bytes);
  void give_back(Arena);
  void clear();
  size_t bytes();  // held free

 private:
  static constexpr size_t kKept = 8;
  std::mutex guard_;
  std::vector<Arena> free_;
};

inline void append_key(PlanKey& key, DType dtype, int rank) { key.push_back(static_cast<int64_t>(dtype) << 32 | rank); }

// Called now and then from loops that a model itself controls; throws to stop the run (Ctrl-C in an endless Loop).
extern void (*check_interrupt)();

class Executor {
 public:
  Executor(std::shared_ptr<const Program> program, int threads, size_t plans = 64);

  // Inputs in the order of Program::inputs; a tensor's data must stay valid until return. Throws InputError.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs, Profile* profile = nullptr) {
    return run(inputs, profile, 0);
  }
  // The quick way, for callers that hold outputs themselves: a cached plan (key: append_key and the extents, for every
  // input) that one walk finishes, or null; and that walk. bases: Segment::n_bases of them, inputs from 1 on and the
  // plan's buffers filled in. Throws what a step reports.
  std::shared_ptr<Segment> find_whole(const PlanKey& key);
  void run_whole(const Segment&, char** bases);
  // Plans without running: the first segment for these shapes.
  std::shared_ptr<Segment> plan(const std::vector<Desc>& inputs);
  void trim();
  void forget_plans() { plans_.clear(); }  // the next runs plan anew; arenas are kept
  size_t cached_plans() { return plans_.size(); }
  size_t cached_bytes() { return arenas_.bytes(); }
  const Program& program() const { return *program_; }
  int threads() const { return threads_; }

 private:
  friend class EagerCall;
  struct Frame;
  std::vector<Tensor> run(const std::vector<Tensor>& inputs, Profile* profile, int depth);
  void check_inputs(const std::vector<Desc>& inputs) const;
  void enter(const Segment&, Frame&);
  void execute(const Segment&, Frame&) const;
  std::shared_ptr<Segment> follow(const std::shared_ptr<Segment>&, Frame&);
  std::vector<Tensor> run_pivot(const Segment&, Frame&);

  std::shared_ptr<const Program> program_;
  int threads_;
  PlanCache plans_;
  ArenaPool arenas_;
  std::vector<std::unique_ptr<Executor>> children_;  // one per subprogram
};

}  // namespace fi
