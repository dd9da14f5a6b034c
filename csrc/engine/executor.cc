// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/executor.h"

#include <algorithm>

#include "csrc/base/pool.h"

namespace fi {

namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// "float32[b,4]"
std::string needed(const Port& p) {
  std::string s = name_of(p.dtype);
  if (!p.ranked) return s;
  s += '[';
  for (size_t k = 0; k < p.extents.size(); ++k)
    s += (k ? "," : "") + (p.extents[k] >= 0 ? std::to_string(p.extents[k]) : p.symbols[k]);
  return s + ']';
}

// Free extents of one name are equal, and within the range that the model states.
void check_symbols(const std::vector<Port>& ports, const std::vector<Desc>& inputs) {
  std::map<std::string, std::pair<int64_t, const Port*>> seen;
  for (size_t i = 0; i < ports.size(); ++i) {
    const Port& p = ports[i];
    if (p.dtype == DType::none || p.dtype == DType::opaque || !p.ranked) continue;
    for (size_t k = 0; k < p.extents.size(); ++k) {
      const std::string& symbol = p.symbols[k];
      if (p.extents[k] >= 0 || symbol.empty() || symbol[0] == '?') continue;
      const int64_t extent = inputs[i].shape[static_cast<int>(k)];
      const auto [first, fresh] = seen.try_emplace(symbol, extent, &p);
      check(fresh || first->second.first == extent, "input '", p.name, "': given ", inputs[i], ", needed ", needed(p),
            ", where ", symbol, " is ", first->second.first, " (from input '", first->second.second->name, "')");
      const auto range = p.ranges.find(symbol);
      if (range == p.ranges.end()) continue;
      const auto [least, greatest] = range->second;
      check(least <= extent && extent <= greatest, "input '", p.name, "': given ", inputs[i], ", needed ", needed(p),
            " with ", symbol,
            greatest == std::numeric_limits<int64_t>::max() ? words(" at least ", least)
                                                            : words(" from ", least, " to ", greatest));
    }
  }
}

// The addresses of a step's operands.
inline void resolve(const Segment& segment, const Step& step, char* const* bases, void** args) {
  const Operand* operands = segment.args.data() + step.args;
  for (int i = 0; i < step.n_args; ++i)
    args[i] = reinterpret_cast<void*>(reinterpret_cast<intptr_t>(bases[operands[i].base]) + operands[i].offset);
}

void append(PlanKey& key, const Desc& d) {
  append_key(key, d.dtype, d.shape.rank());
  key.insert(key.end(), d.shape.begin(), d.shape.end());
}

}  // namespace

void (*check_interrupt)() = nullptr;

ArenaPool::Arena ArenaPool::take(size_t bytes) {
  {
    std::lock_guard lock(guard_);
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->bytes >= bytes && (best == free_.end() || it->bytes < best->bytes)) best = it;
    // One too small is replaced rather than kept beside the new one: memory follows the largest shape, not their sum.
    if (best == free_.end() && !free_.empty()) {
      free_.pop_back();
    } else if (best != free_.end()) {
      Arena a = std::move(*best);
      free_.erase(best);
      return a;
    }
  }
  return {allocate_bytes(bytes), bytes};
}

void ArenaPool::give_back(Arena a) {
  std::lock_guard lock(guard_);
  if (free_.size() < kKept) free_.push_back(std::move(a));
}

void ArenaPool::clear() {
  std::lock_guard lock(guard_);
  free_.clear();
}

size_t ArenaPool::bytes() {
  std::lock_guard lock(guard_);
  size_t sum = 0;
  for (const Arena& a : free_) sum += a.bytes;
  return sum;
}

// The state of one run: where every base is, and who owns what was allocated for it.
struct Executor::Frame {
  explicit Frame(Executor& e) : executor(e) {}
  ~Frame() {
    for (auto& a : arenas) executor.arenas_.give_back(std::move(a));
  }
  Executor& executor;
  std::vector<char*> bases;
  std::vector<Tensor> tensors;  // by base: inputs, output buffers, eager results
  std::vector<ArenaPool::Arena> arenas;
  std::vector<void*> args;
  Profile* profile = nullptr;
  int depth = 0;
  int visit = 0;  // the segment at hand, in profile->visits

  void place(int base, Tensor t) {
    bases[base] = static_cast<char*>(t.data);
    tensors[base] = std::move(t);
  }
};

// What run_eager sees: views of the inputs, room for the outputs, the subprograms.
class EagerCall final : public EagerContext {
 public:
  EagerCall(Executor& executor, std::vector<Tensor> inputs, const Node& node, Profile* profile, int depth)
      : executor_(executor), inputs_(std::move(inputs)), node_(node), profile_(profile), depth_(depth) {
    results_.resize(node.outputs.size());
  }
  int n_inputs() const override { return static_cast<int>(inputs_.size()); }
  const Tensor& input(int i) const override {
    static const Tensor absent;
    return i < n_inputs() ? inputs_[i] : absent;
  }
  int n_outputs() const override { return static_cast<int>(results_.size()); }
  bool wants(int out) const override { return out < n_outputs() && node_.outputs[out] >= 0; }
  void set(int out, Tensor t) override {
    if (out >= n_outputs()) results_.resize(out + 1);
    results_[out] = std::move(t);
  }
  Tensor& result(int out) override { return results_[out]; }
  std::vector<Tensor> run_graph(int index, std::vector<Tensor> inputs) override {
    static thread_local unsigned calls = 0;
    if (check_interrupt && ++calls % 1024 == 0) check_interrupt();
    return executor_.children_[index]->run(inputs, profile_, depth_ + 1);
  }
  Desc declared_output(int index, int output) const override {
    const auto& ports = executor_.program_->subprograms[index]->outputs;
    check_model(output >= 0 && output < static_cast<int>(ports.size()), "subgraph has ", ports.size(),
                " outputs, needed: ", output + 1);
    Desc d{ports[output].dtype, {}};
    for (int64_t extent : ports[output].extents) d.shape.push(std::max<int64_t>(extent, 0));
    return d;
  }
  int threads() const override { return executor_.threads(); }
  std::vector<Tensor> take() {
    results_.resize(node_.outputs.size());
    return std::move(results_);
  }

 private:
  Executor& executor_;
  std::vector<Tensor> inputs_, results_;
  const Node& node_;
  Profile* profile_;
  int depth_;
};

Executor::Executor(std::shared_ptr<const Program> program, int threads, size_t plans)
    : program_(std::move(program)), threads_(threads), plans_(plans) {
  for (const auto& sub : program_->subprograms) children_.push_back(std::make_unique<Executor>(sub, threads, plans));
}

void Executor::check_inputs(const std::vector<Desc>& inputs) const {
  const auto& ports = program_->inputs;
  check(inputs.size() == ports.size(), "given ", inputs.size(), " inputs, needed ", ports.size());
  for (size_t i = 0; i < ports.size(); ++i) {
    const Port& p = ports[i];
    if (p.dtype == DType::none) continue;
    bool ok = inputs[i].dtype == p.dtype;
    if (p.ranked && p.dtype != DType::opaque) {
      ok = ok && inputs[i].shape.rank() == static_cast<int>(p.extents.size());
      for (size_t k = 0; ok && k < p.extents.size(); ++k)
        ok = p.extents[k] < 0 || p.extents[k] == inputs[i].shape[static_cast<int>(k)];
    }
    check(ok, "input '", p.name, "': given ", inputs[i], ", needed ", needed(p));
    inputs[i].bytes();  // extents whose product overflows
  }
  check_symbols(ports, inputs);
}

std::shared_ptr<Segment> Executor::plan(const std::vector<Desc>& inputs) {
  PlanKey key;
  for (const Desc& d : inputs) append(key, d);
  if (auto found = plans_.find(key)) return found;
  check_inputs(inputs);
  auto made = plan_first(*program_, inputs, threads_);
  plans_.insert(key, made);
  return made;
}

void Executor::enter(const Segment& segment, Frame& frame) {
  frame.bases.resize(segment.n_bases);
  frame.tensors.resize(segment.n_bases);
  if (segment.arena_bytes) {
    frame.arenas.push_back(arenas_.take(segment.arena_bytes));
    frame.bases[segment.arena_base] = static_cast<char*>(frame.arenas.back().memory.get());
  }
  for (const OutputBuffer& b : segment.buffers) frame.place(b.base, allocate_tensor(b.desc.dtype, b.desc.shape));
}

void Executor::execute(const Segment& segment, Frame& frame) const {
  for (const Step& step : segment.steps) {
    if (frame.args.size() < step.n_args) frame.args.resize(step.n_args);
    resolve(segment, step, frame.bases.data(), frame.args.data());
    const void* params = segment.params.data() + step.params;
    const int64_t start = frame.profile ? now_ns() : 0;
    const Status status = step.parts == 1 ? step.fn(params, frame.args.data(), 0, 1)
                                          : run_parts(step.fn, params, frame.args.data(), step.parts, threads_);
    if (frame.profile)
      frame.profile->steps.push_back({step.node, step.kernel, start, now_ns() - start, step.flops, frame.depth,
                                      step.node >= 0 ? program_->label(step.node) : std::string(), frame.visit,
                                      static_cast<int>(&step - segment.steps.data())});
    if (status != Status::ok) [[unlikely]]
      throw InputError(program_->label(step.node) + ": " + describe(status));
  }
}

std::vector<Tensor> Executor::run_pivot(const Segment& segment, Frame& frame) {
  const Node& node = program_->nodes[segment.pivot];
  std::vector<Tensor> inputs(node.inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (node.inputs[i] < 0) continue;
    const ValueState& v = segment.state[node.inputs[i]];
    check_model(v.where.base >= 0, program_->label(segment.pivot), ": input ", i, " is kept in packed form only");
    inputs[i].desc = v.desc;
    inputs[i].data = frame.bases[v.where.base] + v.where.offset;
    if (v.where.base > 0) inputs[i].owner = frame.tensors[v.where.base].owner;
  }
  const int64_t start = frame.profile ? now_ns() : 0;
  std::vector<Tensor> results;
  try {
    if (segment.by_fallback) {
      check(static_cast<bool>(program_->fallback), "no fallback is attached");
      results = program_->fallback(segment.pivot, inputs);
    } else {
      EagerCall call(*this, std::move(inputs), node, frame.profile, frame.depth);
      program_->ops[segment.pivot]->run_eager(call);
      results = call.take();
    }
  } catch (const ModelError& e) {
    throw ModelError(program_->label(segment.pivot) + ": " + e.what());
  } catch (const InputError& e) {
    throw InputError(program_->label(segment.pivot) + ": " + e.what());
  }
  if (frame.profile)
    frame.profile->steps.push_back({segment.pivot, segment.by_fallback ? "reference" : "eager", start, now_ns() - start,
                                    0, frame.depth, program_->label(segment.pivot), frame.visit, -1});
  results.resize(node.outputs.size());
  for (size_t i = 0; i < results.size(); ++i)
    check(node.outputs[i] < 0 || static_cast<bool>(results[i]), program_->label(segment.pivot), ": output ", i,
          " was not computed");
  return results;
}

// The segment after one that did not finish, from its cache or planned now.
std::shared_ptr<Segment> Executor::follow(const std::shared_ptr<Segment>& segment, Frame& frame) {
  PlanKey key;
  std::vector<Desc> descs;
  const void* data = nullptr;
  if (segment->end == SegmentEnd::eager) {
    std::vector<Tensor> results = run_pivot(*segment, frame);
    frame.bases.resize(segment->n_bases + results.size());
    frame.tensors.resize(frame.bases.size());
    for (size_t i = 0; i < results.size(); ++i) {
      descs.push_back(results[i].desc);
      append(key, results[i].desc);
      frame.place(segment->n_bases + static_cast<int>(i), std::move(results[i]));
    }
  } else {
    const ValueState& v = segment->state[segment->needed];
    data = frame.bases[v.where.base] + v.where.offset;
    const size_t bytes = v.desc.bytes();
    check(bytes <= (1u << 20), program_->label(segment->pivot), ": a value that shapes depend on has ", bytes,
          " bytes");
    append(key, v.desc);
    const size_t words = (bytes + 7) / 8, at = key.size();
    key.resize(at + words, 0);
    if (bytes) std::memcpy(key.data() + at, data, bytes);
  }
  if (auto found = segment->next.find(key)) return found;
  auto made = plan_next(*program_, segment, descs, data, threads_);
  segment->next.insert(key, made);
  return made;
}

std::vector<Tensor> Executor::run(const std::vector<Tensor>& inputs, Profile* profile, int depth) {
  check(!program_->shapes_only, "a program made for shapes only cannot run");
  std::vector<Desc> descs;
  descs.reserve(inputs.size());
  for (const Tensor& t : inputs) descs.push_back(t.desc);
  std::shared_ptr<Segment> segment = plan(descs);
  Frame frame(*this);
  frame.profile = profile;
  frame.depth = depth;
  frame.bases.resize(inputs.size() + 1);
  frame.tensors.resize(inputs.size() + 1);
  for (size_t i = 0; i < inputs.size(); ++i) frame.place(static_cast<int>(i) + 1, inputs[i]);
  for (;;) {
    if (profile) {
      frame.visit = static_cast<int>(profile->visits.size());
      profile->visits.push_back({program_, segment, depth});
    }
    enter(*segment, frame);
    execute(*segment, frame);
    if (segment->end == SegmentEnd::finished) break;
    segment = follow(segment, frame);
  }
  std::vector<Tensor> outputs;
  outputs.reserve(segment->results.size());
  for (const OutputSource& r : segment->results) {
    Tensor t = frame.tensors[r.base];
    t.desc = r.desc;
    outputs.push_back(std::move(t));
  }
  return outputs;
}

std::shared_ptr<Segment> Executor::find_whole(const PlanKey& key) {
  auto found = plans_.find(key);
  return found && found->end == SegmentEnd::finished ? found : nullptr;
}

void Executor::run_whole(const Segment& segment, char** bases) {
  struct Borrowed {
    ArenaPool& pool;
    ArenaPool::Arena arena;
    ~Borrowed() {
      if (arena.memory) pool.give_back(std::move(arena));
    }
  } borrowed{arenas_, {}};
  if (segment.arena_bytes) {
    borrowed.arena = arenas_.take(segment.arena_bytes);
    bases[segment.arena_base] = static_cast<char*>(borrowed.arena.memory.get());
  }
  static thread_local std::vector<void*> args;
  bases[0] = nullptr;
  const int64_t start = now_ns();
  for (const Step& step : segment.steps) {
    if (args.size() < step.n_args) args.resize(step.n_args);
    resolve(segment, step, bases, args.data());
    const void* params = segment.params.data() + step.params;
    const Status status = step.parts == 1 ? step.fn(params, args.data(), 0, 1)
                                          : run_parts(step.fn, params, args.data(), step.parts, threads_);
    if (status != Status::ok) [[unlikely]]
      throw InputError(program_->label(step.node) + ": " + describe(status));
  }
  segment.last_ns.store(now_ns() - start, std::memory_order_relaxed);
}

void Executor::trim() {
  plans_.clear();
  arenas_.clear();
  for (auto& child : children_) child->trim();
}

}  // namespace fi
