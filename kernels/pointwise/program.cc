// SPDX-License-Identifier: Apache-2.0
#include "kernels/pointwise/program.h"

#include <algorithm>

namespace fi {
namespace {

struct OpRow {
  const char* name;
  const char* signature;  // "F_FF": result, operands
  int cost;
  int arity() const { return static_cast<int>(std::char_traits<char>::length(signature)) - 2; }
};
constexpr OpRow kOps[] = {
#define FI_TILE(name, signature, cost, expression) {#name, #signature, cost},
#include "kernels/pointwise/tile_ops.inc"
#undef FI_TILE
};

struct Pair {
  TileOp first, second, fused;
};
constexpr Pair kPairs[] = {
#define FI_FUSE(first, second, fused) {TileOp::op_##first, TileOp::op_##second, TileOp::op_##fused},
#include "kernels/pointwise/fused_pairs.inc"
#undef FI_FUSE
};

const OpRow& row_of(TileOp op) { return kOps[static_cast<int>(op)]; }

}  // namespace

TileProgramBuilder::TileProgramBuilder(int inputs) : inputs_(inputs), kind_(inputs, Kind::unknown) {
  check_model(inputs <= kTileInputs, "a pointwise program of ", inputs, " inputs; at most ", kTileInputs,
              " are supported");
}

int TileProgramBuilder::immediate(float value) {
  check_model(immediates_.size() < kTileImmediates, "a pointwise program has more than ", kTileImmediates,
              " constants");
  immediates_.push_back(value);
  return kImmediate + static_cast<int>(immediates_.size()) - 1;
}

TileProgramBuilder::Kind TileProgramBuilder::kind_of(int value) const {
  if (value < inputs_) return kind_[value];
  if (value < kResult) return Kind::number;
  return row_of(code_[value - kResult].op).signature[0] == 'B' ? Kind::truth : Kind::number;
}

void TileProgramBuilder::demand(int value, Kind kind, const std::string& name) {
  const int results = kResult + static_cast<int>(code_.size());
  const bool exists = (value >= 0 && value < inputs_) ||
                      (value >= kImmediate && value < kImmediate + static_cast<int>(immediates_.size())) ||
                      (value >= kResult && value < results);
  check_model(exists, "pointwise '", name, "' reads a value that does not exist yet");
  if (value < inputs_ && kind_[value] == Kind::unknown) kind_[value] = kind;
  check_model(kind_of(value) == kind, "pointwise '", name, "' needs ", kind == Kind::truth ? "bool" : "float",
              " for an operand that is ", kind == Kind::truth ? "float" : "bool");
}

int TileProgramBuilder::op(const std::string& name, int a, int b, int c) {
  const auto* row = std::find_if(std::begin(kOps), std::end(kOps), [&](const OpRow& r) { return name == r.name; });
  check_model(row != std::end(kOps), "unknown pointwise operation '", name, "'");
  check_model(code_.size() < kTileInstructions, "a pointwise program has more than ", kTileInstructions, " operations");
  Code code{static_cast<TileOp>(row - kOps), {a, b, c}};
  for (int k = 0; k < 3; ++k) {
    check_model((code.arg[k] >= 0) == (k < row->arity()), "pointwise '", name, "' takes ", row->arity(), " operands");
    if (k < row->arity()) demand(code.arg[k], row->signature[2 + k] == 'B' ? Kind::truth : Kind::number, name);
  }
  code_.push_back(code);
  return kResult + static_cast<int>(code_.size()) - 1;
}

void TileProgramBuilder::count_uses() {
  for (Code& c : code_) c.uses = 0;
  for (const Code& c : code_)
    for (int v : c.arg)
      if (v >= kResult) ++code_[v - kResult].uses;
  for (int v : outputs_)
    if (v >= kResult) ++code_[v - kResult].uses;
}

void TileProgramBuilder::fuse() {
  for (Code& second : code_) {
    const int arity = row_of(second.op).arity();
    for (int k = 0; k < std::min(arity, 2); ++k) {
      const int v = second.arg[k];
      if (v < kResult || code_[v - kResult].uses != 1) continue;
      const Code& first = code_[v - kResult];
      const auto* pair = std::find_if(std::begin(kPairs), std::end(kPairs),
                                      [&](const Pair& p) { return p.first == first.op && p.second == second.op; });
      if (pair == std::end(kPairs)) continue;
      const int other = arity == 2 ? second.arg[1 - k] : -1;
      second = {pair->fused, {first.arg[0], first.arg[1], other}, second.uses};
      code_[v - kResult].uses = 0;
      break;
    }
  }
}

void TileProgramBuilder::drop_unused() {
  std::vector<int> moved(code_.size(), -1);
  std::vector<Code> kept;
  count_uses();
  for (size_t i = code_.size(); i-- > 0;) {  // a dropped reader frees what it read
    if (code_[i].uses > 0) continue;
    for (int v : code_[i].arg)
      if (v >= kResult) --code_[v - kResult].uses;
  }
  const auto renumber = [&](int& v) {
    if (v >= kResult) v = kResult + moved[v - kResult];
  };
  for (size_t i = 0; i < code_.size(); ++i) {
    if (code_[i].uses == 0) continue;
    for (int& v : code_[i].arg) renumber(v);
    moved[i] = static_cast<int>(kept.size());
    kept.push_back(code_[i]);
  }
  for (int& v : outputs_) renumber(v);
  code_ = std::move(kept);
}

// Every output has to be the result of an instruction of its own.
void TileProgramBuilder::copy_plain_outputs() {
  std::vector<int> taken;
  for (int& v : outputs_) {
    if (v < kResult || std::find(taken.begin(), taken.end(), v) != taken.end())
      v = op(kind_of(v) == Kind::truth ? "_copy_bool" : "_copy", v);
    taken.push_back(v);
  }
}

int TileProgramBuilder::number_of(int value) const {
  if (value < 0 || value < inputs_) return value;
  if (value < kResult) return inputs_ + value - kImmediate;
  return inputs_ + static_cast<int>(immediates_.size()) + value - kResult;
}

void TileProgramBuilder::assign_slots() {
  const int n = static_cast<int>(code_.size());
  std::vector<int> last(n, -1), slot(n, -1);
  last_read_.assign(inputs_, -1);
  for (int i = 0; i < n; ++i)
    for (int v : code_[i].arg) {
      if (v >= kResult) last[v - kResult] = i;
      if (v >= 0 && v < inputs_) last_read_[v] = i;
    }
  for (size_t j = 0; j < outputs_.size(); ++j) {
    const int maker = outputs_[j] - kResult;
    slot[maker] = kTileSlots + static_cast<int>(j);
    made_at_.push_back(maker);
  }
  // A slot may be reused by the instruction that reads it last, as lanes do not cross; but floats written over bools,
  // which are narrower, would run ahead of the reading.
  int free_after[kTileSlots];
  bool holds_bools[kTileSlots] = {};
  std::fill(std::begin(free_after), std::end(free_after), -1);
  for (int i = 0; i < n; ++i) {
    if (slot[i] < 0) {
      int s = 0;
      while (s < kTileSlots && (free_after[s] > i || (free_after[s] == i && holds_bools[s]))) ++s;
      check_model(s < kTileSlots, "a pointwise program holds more than ", kTileSlots, " results at a time");
      slot[i] = s;
      free_after[s] = last[i];
      holds_bools[s] = row_of(code_[i].op).signature[0] == 'B';
    }
    const Code& c = code_[i];
    program.code[i] = {c.op, static_cast<uint8_t>(slot[i]), static_cast<int16_t>(number_of(c.arg[0])),
                       static_cast<int16_t>(number_of(c.arg[1])), static_cast<int16_t>(number_of(c.arg[2]))};
    program.cost += row_of(c.op).cost + 2;
  }
}

void TileProgramBuilder::finish() {
  check_model(outputs_.size() >= 1 && outputs_.size() <= kTileOutputs, "a pointwise program has ", outputs_.size(),
              " outputs; 1 to ", kTileOutputs, " are supported");
  for (int v : outputs_)
    if (v < inputs_ && kind_[v] == Kind::unknown) kind_[v] = Kind::number;
  count_uses();
  fuse();
  drop_unused();
  copy_plain_outputs();
  assign_slots();
  for (Kind k : kind_) input_is_bool.push_back(k == Kind::truth);
  for (int v : outputs_) output_is_bool.push_back(kind_of(v) == Kind::truth);
  program.inputs = inputs_;
  program.immediates = static_cast<int>(immediates_.size());
  program.instructions = static_cast<int>(code_.size());
  program.outputs = static_cast<int>(outputs_.size());
  std::copy(immediates_.begin(), immediates_.end(), program.immediate);
  for (size_t j = 0; j < outputs_.size(); ++j) program.output[j] = static_cast<int16_t>(number_of(outputs_[j]));
}

bool TileProgramBuilder::may_overwrite(int output, int input) const {
  return last_read_[input] >= 0 && last_read_[input] <= made_at_[output];
}

void bind_walk(PointwiseParams& p, int64_t* strides, const Walk& walk) {
  p.rank = walk.rank;
  std::copy(walk.extent, walk.extent + walk.rank, p.extent);
  const int last = walk.rank - 1;
  const int64_t inner = walk.extent[last];
  p.flat = walk.rank > 1 && inner <= kTile / 2;
  p.tile = p.flat ? static_cast<int32_t>(kTile / inner * inner) : kTile;
  for (int i = 0; i < walk.inputs; ++i) {
    std::copy(walk.stride[i], walk.stride[i] + walk.rank, strides + i * kTileRank);
    const bool inner_only = std::all_of(walk.stride[i], walk.stride[i] + last, [](int64_t s) { return s == 0; });
    p.read[i] = walk.dense(i)          ? TileRead::dense
                : walk.scalar(i)       ? TileRead::scalar
                : p.flat && inner_only ? TileRead::periodic
                                       : TileRead::strided;
  }
}

double cost_of(const TileProgram& program, int64_t elements) {
  return static_cast<double>(elements) / 16 * (program.cost + 2 * program.inputs);
}

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/pointwise/kernels.inc"
#undef FI_KERNEL

PointwiseKernel select_pointwise(Isa isa) {
#define FI_KERNEL(isa_, symbol) \
  if (Isa::isa_ <= isa) return {"pointwise_" #isa_, isa_::symbol};
#include "kernels/pointwise/kernels.inc"
#undef FI_KERNEL
  throw Error("no pointwise kernel");
}

}  // namespace fi
