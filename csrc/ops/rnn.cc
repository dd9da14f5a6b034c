// SPDX-License-Identifier: Apache-2.0
// LSTM, GRU, RNN: inputs X, W, R, B, sequence_lens, initial_h, initial_c, P; outputs Y, Y_h, Y_c.
#include "csrc/ops/bf16.h"
#include "csrc/ops/rnn_attributes.h"

namespace fi {
namespace {

enum Input { kX, kW, kR, kB, kLengths, kH0, kC0, kP };

// Everything about one node that does not depend on X's shape.
struct Layer {
  RnnKind kind;
  int64_t hidden, depth, directions;
  bool linear_before_reset;
  const GemmF32* gemm;
  int64_t gates() const { return rnn_gates(kind); }
  int64_t columns() const { return rnn_columns(kind, hidden); }
  int64_t width() const { return rnn_slices(hidden) * kUnits; }
  GemmPanels panels() const { return {1, depth, columns(), gemm->nr}; }
  BF16Panels bf16_panels() const { return {1, depth, columns()}; }
  bool has_reset_bias() const { return kind == RnnKind::gru && linear_before_reset; }
  int64_t w_floats() const { return directions * packed_floats(panels()); }
  int64_t r_floats() const { return directions * columns() * hidden; }
  int64_t bias_floats() const { return directions * (columns() + (has_reset_bias() ? width() : 0)); }
  int64_t peephole_floats() const { return directions * 3 * width(); }
};

void pack_w(const Layer& l, const float* w, float* packed) {
  const auto permuted = allocate_bytes(static_cast<size_t>(l.columns() * l.depth) * sizeof(float));
  auto* rows = static_cast<float*>(permuted.get());
  for (int64_t d = 0; d < l.directions; ++d) {
    rnn_permute(l.kind, l.hidden, l.depth, w + d * l.gates() * l.hidden * l.depth, rows);
    gemm_f32_pack(*l.gemm, l.panels(), rows, 0, 1, l.depth, packed + d * packed_floats(l.panels()));
  }
}

void unpack_w(const Layer& l, int nr, const float* packed, float* w) {
  const auto permuted = allocate_bytes(static_cast<size_t>(l.columns() * l.depth) * sizeof(float));
  auto* rows = static_cast<float*>(permuted.get());
  GemmPanels panels = l.panels();
  panels.nr = nr;
  for (int64_t d = 0; d < l.directions; ++d) {
    gemm_f32_unpack(panels, packed + d * packed_floats(panels), rows, 0, 1, l.depth);
    rnn_restore(l.kind, l.hidden, l.depth, rows, w + d * l.gates() * l.hidden * l.depth);
  }
}

void pack_w_bf16(const Layer& l, const float* w, uint16_t* packed) {
  const auto permuted = allocate_bytes(static_cast<size_t>(l.columns() * l.depth) * sizeof(float));
  auto* rows = static_cast<float*>(permuted.get());
  for (int64_t d = 0; d < l.directions; ++d) {
    rnn_permute(l.kind, l.hidden, l.depth, w + d * l.gates() * l.hidden * l.depth, rows);
    gemm_bf16_pack(l.bf16_panels(), rows, 0, 1, l.depth, packed + d * l.bf16_panels().elements());
  }
}

void pack_r(const Layer& l, const float* r, float* packed) {
  for (int64_t d = 0; d < l.directions; ++d)
    rnn_pack_recurrent(l.kind, l.hidden, r + d * l.gates() * l.hidden * l.hidden, packed + d * l.columns() * l.hidden);
}

// The sum of both biases in slice order; under linear_before_reset the recurrent one of h~ stays apart, behind the
// others.
void pack_bias(const Layer& l, const float* b, float* out) {
  const int64_t n = l.gates() * l.hidden;
  std::memset(out, 0, static_cast<size_t>(l.bias_floats()) * sizeof(float));
  for (int64_t d = 0; d < l.directions; ++d, b += 2 * n) {
    for (int64_t g = 0; g < l.gates(); ++g)
      for (int64_t u = 0; u < l.hidden; ++u) {
        const bool apart = l.has_reset_bias() && g == 2;
        const int64_t at = (u / kUnits * l.gates() + g) * kUnits + u % kUnits;
        out[d * l.columns() + at] = b[g * l.hidden + u] + (apart ? 0.f : b[n + g * l.hidden + u]);
        if (apart) out[l.directions * l.columns() + d * l.width() + u] = b[n + g * l.hidden + u];
      }
  }
}

void pack_peephole(const Layer& l, const float* p, float* out) {
  std::memset(out, 0, static_cast<size_t>(l.peephole_floats()) * sizeof(float));
  for (int64_t i = 0; i < l.directions * 3; ++i)
    std::memcpy(out + i * l.width(), p + i * l.hidden, static_cast<size_t>(l.hidden) * sizeof(float));
}

template <void (*Pack)(const Layer&, const float*, float*)>
Status pack_step(const void* params, void* const* args, int, int) {
  Pack(*static_cast<const Layer*>(params), static_cast<const float*>(args[0]), static_cast<float*>(args[1]));
  return Status::ok;
}

class Rnn final : public Op {
 public:
  Rnn(BuildContext& ctx, RnnKind kind) : attributes_(ctx.node.attributes, kind), gemm_(gemm_f32(ctx.isa)) {
    const Desc *w = ctx.constant_desc(kW), *r = ctx.constant_desc(kR);
    if (!w || !r || w->dtype != DType::f32 || r->dtype != DType::f32) return;
    const Layer l = layer(w->shape, r->shape);
    if (allows_bf16(ctx.node)) w_bf16_ = packed_bf16(ctx, l);
    w_ = w_bf16_ ? nullptr
                 : static_cast<const float*>(
                       ctx.packed(kW, packing(l, "rnn_w", l.w_floats(), pack_w,
                                              [l](int nr, auto* p, auto* out) { unpack_w(l, nr, p, out); })));
    r_ = static_cast<const float*>(
        ctx.packed(kR, packing(l, "rnn_r", l.r_floats(), pack_r, [l](int, auto* p, auto* out) {
                     for (int64_t d = 0; d < l.directions; ++d)
                       rnn_unpack_recurrent(l.kind, l.hidden, p + d * l.columns() * l.hidden,
                                            out + d * l.gates() * l.hidden * l.hidden);
                   })));
    bias_ = prepared(ctx, kB, l.bias_floats(), l.directions * 2 * l.gates() * l.hidden, l, pack_bias);
    peephole_ = prepared(ctx, kP, l.peephole_floats(), l.directions * 3 * l.hidden, l, pack_peephole);
  }

  void plan(PlanContext& ctx) const override {
    for (int i = 0; i < ctx.n_inputs(); ++i)
      if (i != kLengths && ctx.has_input(i) && ctx.dtype(i) != DType::f32)
        ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
    const Layer l = layer(ctx.shape(kW), ctx.shape(kR));
    const Shape& x = ctx.shape(kX);
    check(x.rank() == 3 && x[2] == l.depth, "X is ", x, ", needed rank 3 with ", l.depth, " features");
    RnnProblem q = attributes_.problem(l.directions);
    q.hidden = l.hidden;
    q.gemm = &gemm_;
    q.cell = &rnn_cell(ctx.isa());
    set_strides(q, x);
    check_optional(ctx, l, q);
    const Shape y = attributes_.batch_first ? Shape{q.batch, q.steps, l.directions, l.hidden}
                                            : Shape{q.steps, l.directions, q.batch, l.hidden};
    const Shape state =
        attributes_.batch_first ? Shape{q.batch, l.directions, l.hidden} : Shape{l.directions, q.batch, l.hidden};
    Operand out[3];
    for (int i = 0; i < 3; ++i) out[i] = ctx.wants(i) ? ctx.output(i, DType::f32, i == 0 ? y : state) : Operand{0, 0};
    if (q.batch == 0 || l.hidden == 0) return;

    const Operand w = w_bf16_ ? ctx.address(w_bf16_) : operand<pack_w>(ctx, kW, w_, l, l.w_floats(), "rnn_pack_w");
    const Operand r = operand<pack_r>(ctx, kR, r_, l, l.r_floats(), "rnn_pack_r");
    const Operand none{0, 0};
    const Operand bias =
        ctx.has_input(kB) ? operand<pack_bias>(ctx, kB, bias_, l, l.bias_floats(), "rnn_pack_bias") : none;
    const Operand peephole =
        ctx.has_input(kP) ? operand<pack_peephole>(ctx, kP, peephole_, l, l.peephole_floats(), "rnn_pack_peephole")
                          : none;
    const Operand gates = w_bf16_ ? input_gates_bf16(ctx, l, q, w, bias) : input_gates(ctx, l, q, w, bias);
    const double work =
        static_cast<double>(q.steps * q.batch * l.directions) * static_cast<double>(l.columns() * l.hidden);
    const int parts = rnn_cut(q, ctx.parts_for(work / 16));
    const Operand reset = ctx.has_input(kB) && l.has_reset_bias()
                              ? bias.plus(l.directions * l.columns() * static_cast<int64_t>(sizeof(float)))
                              : none;
    const Operand scratch = ctx.scratch(rnn_scratch(q));
    if (q.splits > 1) ctx.step("rnn_start", rnn_start_step, q, {scratch});
    ctx.step(q.cell->name, rnn_step, q,
             {gates, r, reset, peephole, ctx.in(kH0), ctx.in(kC0), ctx.in(kLengths), out[0], out[1], out[2], scratch},
             parts, 2 * work);
  }

 private:
  Layer layer(const Shape& w, const Shape& r) const {
    const int64_t gates = rnn_gates(attributes_.kind);
    check(w.rank() == 3 && r.rank() == 3, "W ", w, " and R ", r, ", needed rank 3");
    const int64_t hidden = r[2];
    check(w[0] == attributes_.directions && r[0] == w[0] && w[1] == gates * hidden && r[1] == w[1], "W ", w, " and R ",
          r, " do not fit ", attributes_.directions, " directions of ", gates, " gates");
    check_model(attributes_.hidden < 0 || attributes_.hidden == hidden, "hidden_size ", attributes_.hidden,
                " does not fit R ", r);
    return {attributes_.kind, hidden, w[2], w[0], attributes_.linear_before_reset, &gemm_};
  }

  template <class Unpack>
  static Packing packing(const Layer& l, const char* what, int64_t floats,
                         void (*pack)(const Layer&, const float*, float*), Unpack unpack) {
    Packing p;
    p.layout = words(what, "_nr", l.gemm->nr, "_g", l.gates(), "_", l.directions, "x", l.hidden, "x", l.depth);
    p.bytes = static_cast<size_t>(floats) * sizeof(float);
    p.pack = [l, pack](const Tensor& dense, void* out) { pack(l, dense.as<float>(), static_cast<float*>(out)); };
    p.unpack = [unpack](const std::string& layout, const void* in, void* out) {
      unpack(std::atoi(layout.c_str() + layout.find("_nr") + 3), static_cast<const float*>(in),
             static_cast<float*>(out));
    };
    return p;
  }

  static const void* packed_bf16(BuildContext& ctx, const Layer& l) {
    Packing p;
    p.layout = words("rnn_w_bf16_g", l.gates(), "_", l.directions, "x", l.hidden, "x", l.depth);
    p.bytes = static_cast<size_t>(l.directions * l.bf16_panels().elements()) * 2;
    p.pack = [l](const Tensor& dense, void* out) { pack_w_bf16(l, dense.as<float>(), static_cast<uint16_t*>(out)); };
    return ctx.packed(kW, p);
  }

  static std::shared_ptr<void> prepared(BuildContext& ctx, int input, int64_t floats, int64_t needed, const Layer& l,
                                        void (*pack)(const Layer&, const float*, float*)) {
    const Tensor* t = ctx.has_input(input) ? ctx.constant(input) : nullptr;
    if (!t || t->desc.dtype != DType::f32 || t->desc.elements() != needed) return nullptr;
    auto memory = allocate_bytes(static_cast<size_t>(floats) * sizeof(float));
    pack(l, t->as<float>(), static_cast<float*>(memory.get()));
    return memory;
  }

  template <void (*Pack)(const Layer&, const float*, float*)>
  static Operand operand(PlanContext& ctx, int input, const void* ready, const Layer& l, int64_t floats,
                         const char* name) {
    if (ready) return ctx.address(ready);
    const Operand out = ctx.scratch(static_cast<size_t>(floats) * sizeof(float));
    ctx.step(name, pack_step<Pack>, l, {ctx.in(input), out});
    return out;
  }
  template <void (*Pack)(const Layer&, const float*, float*)>
  static Operand operand(PlanContext& ctx, int input, const std::shared_ptr<void>& ready, const Layer& l,
                         int64_t floats, const char* name) {
    return operand<Pack>(ctx, input, ready.get(), l, floats, name);
  }

  void set_strides(RnnProblem& q, const Shape& x) const {
    const int64_t H = q.hidden, D = q.directions;
    q.steps = attributes_.batch_first ? x[1] : x[0];
    q.batch = attributes_.batch_first ? x[0] : x[1];
    if (attributes_.batch_first) {
      q.x_step = 1, q.x_batch = q.steps;
      q.y_step = D * H, q.y_direction = H, q.y_batch = q.steps * D * H;
      q.state_direction = H, q.state_batch = D * H;
    } else {
      q.x_step = q.batch, q.x_batch = 1;
      q.y_step = D * q.batch * H, q.y_direction = q.batch * H, q.y_batch = H;
      q.state_direction = q.batch * H, q.state_batch = H;
    }
  }

  static void check_optional(PlanContext& ctx, const Layer& l, const RnnProblem& q) {
    const auto need = [&](int i, const char* name, int64_t elements) {
      if (ctx.has_input(i))
        check(ctx.shape(i).elements() == elements, name, " is ", ctx.shape(i), ", needed ", elements, " elements");
    };
    need(kB, "B", l.directions * 2 * l.gates() * l.hidden);
    need(kLengths, "sequence_lens", q.batch);
    need(kH0, "initial_h", l.directions * q.batch * l.hidden);
    need(kC0, "initial_c", l.directions * q.batch * l.hidden);
    need(kP, "P", l.directions * 3 * l.hidden);
    if (ctx.has_input(kLengths))
      check(ctx.dtype(kLengths) == DType::s32, "sequence_lens is ", ctx.input(kLengths), ", needed int32");
  }

  // [direction][row of X][columns]
  Operand input_gates(PlanContext& ctx, const Layer& l, const RnnProblem& q, Operand w, Operand bias) const {
    GemmStep g;
    g.kernel = &gemm_;
    g.m = q.steps * q.batch;
    g.n = l.columns();
    g.k = g.lda = l.depth;
    const int parts = ctx.parts_for(gemm_f32_prepare(g));
    const Operand gates = ctx.scratch(static_cast<size_t>(l.directions * g.m * g.n) * sizeof(float));
    const double flops = 2.0 * static_cast<double>(g.m) * static_cast<double>(l.gates() * l.hidden * l.depth);
    for (int64_t d = 0; d < l.directions && g.m; ++d) {
      const auto at = [&](Operand o, int64_t floats) {
        return o.base == 0 && o.offset == 0 ? o : o.plus(d * floats * static_cast<int64_t>(sizeof(float)));
      };
      ctx.step(gemm_.name, gemm_f32_step, g,
               {ctx.in(kX), at(w, packed_floats(l.panels())), at(bias, l.columns()), Operand{0, 0},
                at(gates, g.m * g.n), Operand{0, 0}},
               parts, flops);
    }
    return gates;
  }

  // The same on bfloat16 operands; the recurrence, where roundings would gather from step to step, stays float32.
  static Operand input_gates_bf16(PlanContext& ctx, const Layer& l, const RnnProblem& q, Operand w, Operand bias) {
    GemmBF16Step g;
    g.kernel = &gemm_bf16(ctx.isa());
    g.m = q.steps * q.batch;
    g.n = l.columns();
    g.k = g.lda = l.depth;
    const int parts = ctx.parts_for(gemm_bf16_prepare(g));
    const Operand gates = ctx.scratch(static_cast<size_t>(l.directions * g.m * g.n) * sizeof(float));
    const Operand scratch = ctx.scratch(gemm_bf16_scratch(g, parts));
    const double flops = 2.0 * static_cast<double>(g.m) * static_cast<double>(l.gates() * l.hidden * l.depth);
    for (int64_t d = 0; d < l.directions && g.m; ++d)
      ctx.step(g.kernel->name, gemm_bf16_step, g,
               {ctx.in(kX), w.plus(d * l.bf16_panels().elements() * 2),
                ctx.has_input(kB) ? bias.plus(d * l.columns() * 4) : bias, Operand{0, 0}, gates.plus(d * g.m * g.n * 4),
                scratch},
               parts, flops);
    return gates;
  }

  RnnAttributes attributes_;
  const GemmF32& gemm_;
  const void* w_bf16_ = nullptr;  // instead of w_
  const float *w_ = nullptr, *r_ = nullptr;
  std::shared_ptr<void> bias_, peephole_;
};

}  // namespace

std::unique_ptr<Op> make_lstm(BuildContext& c) { return std::make_unique<Rnn>(c, RnnKind::lstm); }
std::unique_ptr<Op> make_gru(BuildContext& c) { return std::make_unique<Rnn>(c, RnnKind::gru); }
std::unique_ptr<Op> make_rnn(BuildContext& c) { return std::make_unique<Rnn>(c, RnnKind::rnn); }

}  // namespace fi
