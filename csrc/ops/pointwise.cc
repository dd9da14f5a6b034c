// SPDX-License-Identifier: Apache-2.0
// fastinfer::Pointwise, and the planning that elementwise operators share with it.
#include <array>
#include <mutex>
#include <numeric>

#include "csrc/ops/pointwise_step.h"
#include "kernels/lookup/lookup.h"

namespace fi {
namespace {

TileType tile_type(PlanContext& ctx, DType t, bool is_bool, bool is_output) {
  if (is_bool && t == DType::boolean) return TileType::boolean;
  if (!is_bool) switch (t) {
      case DType::f32:
        return TileType::f32;
      case DType::f16:
        return TileType::f16;
      case DType::bf16:
        return TileType::bf16;
      case DType::u8:
        return TileType::u8;
      case DType::s8:
        return TileType::s8;
      case DType::u4:
        return TileType::u4;
      case DType::s4:
        return TileType::s4;
      case DType::u2:
        return TileType::u2;
      case DType::s2:
        return TileType::s2;
      case DType::u16:
        return TileType::u16;
      case DType::s16:
        return TileType::s16;
      case DType::s32:
        if (!is_output) return TileType::s32;
        break;
      default:
        break;
    }
  ctx.not_native(words(is_output ? "an output" : "an input", " of type ", name_of(t), " in a pointwise program"));
}

template <int kInputs>
void add_step(PlanContext& ctx, const PointwiseParams& common, const Walk& walk, std::span<const Operand> args) {
  PointwiseParamsFor<kInputs> p;
  static_cast<PointwiseParams&>(p) = common;
  bind_walk(p, p.strides[0], walk);
  const PointwiseKernel kernel = select_pointwise(ctx.isa());
  const double cost = cost_of(*p.program, walk.elements());
  const auto tiles = static_cast<double>(count_tiles(p));
  const int parts = static_cast<int>(std::min<double>(ctx.parts_for(cost), tiles));
  ctx.step(kernel.name, kernel.run, p, args, parts);
}

// Whether output j may take over input k's memory: read last by the instruction that makes the output, at every place
// where the node has that value.
bool may_take_over(const Node& node, const TileProgramBuilder& program, std::span<const int> which, int j, int k) {
  for (size_t i = 0; i < which.size(); ++i)
    if (node.inputs[which[i]] == node.inputs[which[k]] && !program.may_overwrite(j, static_cast<int>(i))) return false;
  return true;
}

bool is_byte(DType t) { return t == DType::u8 || t == DType::s8; }
bool is_float(DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; }

class Pointwise final : public Op {
 public:
  explicit Pointwise(BuildContext& ctx) : node_(ctx.node), program_(ctx.n_inputs()), which_(ctx.n_inputs()) {
    const int inputs = ctx.n_inputs();
    const std::vector<std::string> ops = node_.attributes.strings("ops");
    const std::vector<int64_t> args = node_.attributes.ints("args"), outputs = node_.attributes.ints("outputs");
    check_model(args.size() == 3 * ops.size(), "Pointwise has ", ops.size(), " ops and ", args.size(),
                " args; needed: three per op");
    check_model(outputs.size() == node_.outputs.size(), "Pointwise names ", outputs.size(), " outputs and has ",
                node_.outputs.size());
    std::vector<int> values(inputs);
    std::iota(values.begin(), values.end(), 0);
    const auto value = [&](int64_t v) {
      if (v == -1) return -1;
      check_model(v >= 0 && v < static_cast<int64_t>(values.size()), "Pointwise reads value ", v, " of ",
                  values.size());
      return values[static_cast<size_t>(v)];
    };
    for (size_t i = 0; i < ops.size(); ++i) {
      check_model(!ops[i].empty() && ops[i][0] != '_', "unknown pointwise operation '", ops[i], "'");
      values.push_back(program_.op(ops[i], value(args[3 * i]), value(args[3 * i + 1]), value(args[3 * i + 2])));
    }
    for (int64_t v : outputs) {
      check_model(v >= 0 && v < static_cast<int64_t>(ops.size()), "Pointwise output ", v, " is not one of ", ops.size(),
                  " results");
      program_.output(values[static_cast<size_t>(inputs + v)]);
    }
    program_.finish();
    check_model(type_ == DType::f32 || is_byte(type_), "output_type is ", name_of(type_));
    std::iota(which_.begin(), which_.end(), 0);
    find_single(ctx);
  }

  void plan(PlanContext& ctx) const override {
    if (single_ >= 0 && is_byte(ctx.dtype(single_)) && ctx.shape(single_).rank() >= rank_)
      plan_lookup(ctx);
    else
      plan_pointwise(ctx, node_, program_, which_, type_, true);
  }

 private:
  // A function of one input to bytes, all others being single constants: of a byte it is a table.
  void find_single(BuildContext& ctx) {
    if (!is_byte(type_) || program_.output_is_bool.size() != 1 || program_.output_is_bool[0]) return;
    int found = -1;
    for (int i = 0; i < ctx.n_inputs(); ++i) {
      const Desc* d = ctx.constant_desc(i);
      if (d && d->dtype == DType::f32 && d->elements() == 1) {
        rank_ = std::max(rank_, d->shape.rank());
      } else if (d || found >= 0 || program_.input_is_bool[static_cast<size_t>(i)]) {
        return;
      } else {
        found = i;
      }
    }
    if (found < 0) return;
    single_ = found;
    for (int i = 0; i < ctx.n_inputs(); ++i) numbers_.push_back(i == found ? 0 : *ctx.constant(i)->as<float>());
  }

  void plan_lookup(PlanContext& ctx) const {
    const Shape& shape = ctx.shape(single_);
    std::call_once(once_, [&] { make_table(ctx.isa(), tile_type(ctx, ctx.dtype(single_), false, false)); });
    LookupStep p;
    p.columns = shape.rank() ? shape.back() : 1;
    const Operand x = ctx.in_rows(single_, p.x_row), y = ctx.output_rows(0, type_, shape, p.y_row);
    if (shape.elements() == 0) return;
    p.rows = shape.elements() / p.columns;
    const LookupKernel kernel = select_lookup(ctx.isa());
    ctx.step(kernel.name, kernel.run, p, {x, ctx.address(table_.data()), y},
             ctx.parts_for(static_cast<double>(shape.elements()) / 8));
  }

  // The program itself, over all bytes.
  void make_table(Isa isa, TileType type) const {
    const std::array<Shape, kTileInputs> shapes = [&] {
      std::array<Shape, kTileInputs> out;
      out[static_cast<size_t>(single_)] = Shape{256};
      return out;
    }();
    PointwiseParamsFor<kTileInputs> p;
    p.program = &program_.program;
    std::array<uint8_t, 256> bytes;
    std::iota(bytes.begin(), bytes.end(), uint8_t{0});
    void* args[kTileInputs + 1];
    size_t n = 0;
    for (; n < numbers_.size(); ++n) {
      const bool single = static_cast<int>(n) == single_;
      p.in_type[n] = single ? type : TileType::f32;
      args[n] = single ? static_cast<void*>(bytes.data()) : const_cast<float*>(&numbers_[n]);
    }
    p.out_type[0] = type_ == DType::u8 ? TileType::u8 : TileType::s8;
    args[n] = table_.data();
    bind_walk(p, p.strides[0], walk_over(Shape{256}, std::span<const Shape>(shapes.data(), n)));
    select_pointwise(isa).run(&p, args, 0, 1);
  }

  int single_ = -1, rank_ = 0;
  std::vector<float> numbers_;
  mutable std::once_flag once_;
  mutable std::array<uint8_t, 256> table_;
  const Node& node_;
  TileProgramBuilder program_;
  std::vector<int> which_;
  DType type_ = static_cast<DType>(node_.attributes.i("output_type", static_cast<int64_t>(DType::f32)));
};

}  // namespace

void add_pointwise(PlanContext& ctx, const TileProgramBuilder& program, std::span<const PointwiseArg> inputs,
                   std::span<const PointwiseArg> outputs) {
  PointwiseParams p;
  p.program = &program.program;
  Shape shapes[kTileInputs];
  Operand args[kTileInputs + kTileOutputs];
  size_t n = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    p.in_type[i] = tile_type(ctx, inputs[i].desc.dtype, program.input_is_bool[i], false);
    shapes[i] = inputs[i].desc.shape;
    args[n++] = inputs[i].data;
  }
  for (size_t j = 0; j < outputs.size(); ++j) {
    p.out_type[j] = tile_type(ctx, outputs[j].desc.dtype, program.output_is_bool[j], true);
    args[n++] = outputs[j].data;
  }
  const Walk walk = walk_over(outputs[0].desc.shape, std::span<const Shape>(shapes, inputs.size()));
  if (walk.elements() == 0) return;
  const std::span<const Operand> used(args, n);
  inputs.size() <= 4 ? add_step<4>(ctx, p, walk, used) : add_step<kTileInputs>(ctx, p, walk, used);
}

void plan_pointwise(PlanContext& ctx, const Node& node, const TileProgramBuilder& program, std::span<const int> which,
                    DType type, bool bytes) {
  PointwiseArg inputs[kTileInputs], outputs[kTileOutputs];
  Shape shape = which.empty() ? Shape{} : ctx.shape(which[0]);
  for (size_t k = 0; k < which.size(); ++k) {
    const Desc& d = ctx.input(which[k]);
    const bool ok =
        program.input_is_bool[k] ? d.dtype == DType::boolean : is_float(d.dtype) || (bytes && is_byte(d.dtype));
    if (!ok) ctx.not_native(words("input ", which[k], " of type ", name_of(d.dtype), " in a pointwise program"));
    inputs[k] = {ctx.in(which[k]), d};
    shape = broadcast(shape, d.shape);
  }
  const int n_outputs = static_cast<int>(program.output_is_bool.size());
  uint32_t taken = 0;
  for (int j = 0; j < n_outputs; ++j) {
    const Desc d{program.output_is_bool[j] ? DType::boolean : type, shape};
    int over = -1;
    for (int k = 0; k < static_cast<int>(which.size()) && over < 0; ++k)
      if (d.dtype == DType::f32 && inputs[k].desc.dtype == DType::f32 && inputs[k].desc.shape == shape &&
          !(taken >> k & 1) && may_take_over(node, program, which, j, k))
        over = k;
    if (over >= 0) taken |= 1u << over;
    outputs[j] = {over < 0 ? ctx.output(j, d.dtype, shape) : ctx.output_over(j, d.dtype, shape, which[over]), d};
  }
  add_pointwise(ctx, program, std::span<const PointwiseArg>(inputs, which.size()),
                std::span<const PointwiseArg>(outputs, static_cast<size_t>(n_outputs)));
}

void add_number_cast(PlanContext& ctx, const PointwiseArg& x, const PointwiseArg& y) {
  static const TileProgramBuilder copy = [] {
    TileProgramBuilder b(1);
    b.output(0);
    b.finish();
    return b;
  }();
  add_pointwise(ctx, copy, std::span<const PointwiseArg>(&x, 1), std::span<const PointwiseArg>(&y, 1));
}

Operand float_input(PlanContext& ctx, int i) {
  const Desc& d = ctx.input(i);
  if (d.dtype == DType::f32) return ctx.in(i);
  if (d.dtype != DType::f16 && d.dtype != DType::bf16)
    ctx.not_native(words("input ", i, " of type ", name_of(d.dtype)));
  const PointwiseArg work{ctx.scratch(static_cast<size_t>(d.elements()) * 4), {DType::f32, d.shape}};
  add_number_cast(ctx, {ctx.in(i), d}, work);
  return work.data;
}

FloatOutput float_output(PlanContext& ctx, int out, DType dtype, const Shape& shape, int over) {
  FloatOutput y;
  y.desc = {dtype, shape};
  const bool whole = dtype == DType::f32;
  y.real = over >= 0 && whole ? ctx.output_over(out, dtype, shape, over) : ctx.output(out, dtype, shape);
  y.data = whole ? y.real : ctx.scratch(static_cast<size_t>(shape.elements()) * 4);
  return y;
}

void FloatOutput::finish(PlanContext& ctx) const {
  if (desc.dtype != DType::f32) add_number_cast(ctx, {data, {DType::f32, desc.shape}}, {real, desc});
}

std::unique_ptr<Op> make_pointwise(BuildContext& c) { return std::make_unique<Pointwise>(c); }

}  // namespace fi
