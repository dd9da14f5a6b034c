// SPDX-License-Identifier: Apache-2.0
// com.microsoft::DynamicQuantizeLSTM: inputs X, W, R, B, sequence_lens, initial_h, initial_c, P, and scale and zero
// point of W and of R; W and R are int8 or uint8 [directions, depth, 4 hidden]. Outputs Y, Y_h, Y_c.
#include <cstdio>

#include "csrc/ops/rnn_attributes.h"
#include "kernels/rnn/quantized.h"

namespace fi {
namespace {

enum Input { kX, kW, kR, kB, kLengths, kH0, kC0, kP, kWScale, kWZero, kRScale, kRZero };
constexpr int kGates = 4;

// W or R: [directions, depth, 4 hidden] in bytes.
struct Matrix {
  int64_t directions, depth, hidden;
  bool is_unsigned;
  int64_t columns() const { return rnn_columns(RnnKind::lstm, hidden); }
  U8S8Panels panels(int nr) const { return {1, depth, columns(), nr}; }
  int64_t bytes(int nr) const { return (packed_bytes(panels(nr)) + 63) / 64 * 64; }
};

// f(column in slice order, column in ONNX's order) for every gate and unit.
template <class F>
void each_column(int64_t hidden, F f) {
  for (int64_t g = 0; g < kGates; ++g)
    for (int64_t u = 0; u < hidden; ++u) f((u / kUnits * kGates + g) * kUnits + u % kUnits, g * hidden + u);
}

void pack_matrix(const Matrix& m, int nr, const uint8_t* dense, char* packed) {
  // Padding columns hold the value that packs to 0.
  std::vector<uint8_t> wide(static_cast<size_t>(m.depth * m.columns()), m.is_unsigned ? 128 : 0);
  for (int64_t d = 0; d < m.directions; ++d) {
    const uint8_t* from = dense + d * m.depth * kGates * m.hidden;
    each_column(m.hidden, [&](int64_t to, int64_t column) {
      for (int64_t k = 0; k < m.depth; ++k) wide[k * m.columns() + to] = from[k * kGates * m.hidden + column];
    });
    const U8S8Panels panels = m.panels(nr);
    gemm_u8s8_pack(panels, wide.data(), m.is_unsigned, 0, m.columns(), 1, packed + d * m.bytes(nr), 0,
                   panel_count(panels));
  }
}

void unpack_matrix(const Matrix& m, int nr, const char* packed, uint8_t* dense) {
  std::vector<uint8_t> wide(static_cast<size_t>(m.depth * m.columns()));
  for (int64_t d = 0; d < m.directions; ++d) {
    gemm_u8s8_unpack(m.panels(nr), packed + d * m.bytes(nr), m.is_unsigned, 0, m.columns(), 1, wide.data());
    uint8_t* to = dense + d * m.depth * kGates * m.hidden;
    each_column(m.hidden, [&](int64_t at, int64_t column) {
      for (int64_t k = 0; k < m.depth; ++k) to[k * kGates * m.hidden + column] = wide[k * m.columns() + at];
    });
  }
}

Packing matrix_packing(const Matrix& m, int nr) {
  const std::string rest = words("_", m.directions, "x", m.depth, "x", m.hidden, m.is_unsigned ? "_u8" : "_s8");
  Packing how;
  how.layout = words("lstm_u8s8_nr", nr, rest);
  how.bytes = static_cast<size_t>(m.directions * m.bytes(nr));
  how.pack = [=](const Tensor& dense, void* packed) {
    std::memset(packed, 0, static_cast<size_t>(m.directions * m.bytes(nr)));
    pack_matrix(m, nr, dense.as<uint8_t>(), static_cast<char*>(packed));
  };
  how.unpack = [=](const std::string& layout, const void* packed, void* dense) {
    int from = 0;
    check_model(std::sscanf(layout.c_str(), "lstm_u8s8_nr%d", &from) == 1 && from > 0 && from % 16 == 0 &&
                    layout == words("lstm_u8s8_nr", from, rest),
                "packed layout '", layout, "' is not one of lstm_u8s8_nr*", rest);
    unpack_matrix(m, from, static_cast<const char*>(packed), static_cast<uint8_t*>(dense));
  };
  return how;
}

class DynamicQuantizeLstm final : public Op {
 public:
  explicit DynamicQuantizeLstm(BuildContext& ctx)
      : attributes_(ctx.node.attributes, RnnKind::lstm), gemm_(gemm_u8s8(ctx.isa)) {
    prepare(ctx);
  }

  void plan(PlanContext& ctx) const override {
    if (!refusal_.empty()) ctx.not_native(refusal_);
    const Shape& x = ctx.shape(kX);
    check(ctx.dtype(kX) == DType::f32 && x.rank() == 3 && x[2] == w_.depth, "X is ", ctx.input(kX),
          ", needed: float32 [steps, batch, ", w_.depth, "]");
    QuantizedLstm q;
    q.cell = attributes_.problem(w_.directions);
    q.cell.cell = &rnn_cell(ctx.isa());
    q.depth = w_.depth;
    q.gemm = &gemm_;
    q.quantize = &dynamic_quantize(ctx.isa());
    for (int d = 0; d < 2; ++d) q.weights[d] = weights_[d];
    set_extents(q.cell, x[0], x[1]);
    const int64_t D = w_.directions, H = r_.depth, B = x[1];
    check_states(ctx, Shape{D, B, H}, B);
    const Shape shapes[] = {{x[0], D, B, H}, {D, B, H}, {D, B, H}};
    Operand out[3];
    for (int i = 0; i < 3; ++i) out[i] = ctx.wants(i) ? ctx.output(i, DType::f32, shapes[i]) : Operand{0, 0};
    if (B * H == 0) return;
    const double flops = 2.0 * static_cast<double>(x[0] * B * D * kGates * H) * static_cast<double>(H + w_.depth);
    const int parts = static_cast<int>(std::min<int64_t>(D, ctx.parts_for(flops / 64)));
    ctx.step("lstm_u8s8", quantized_lstm_step, q,
             {ctx.in(kX), ctx.in(kLengths), ctx.in(kH0), ctx.in(kC0), out[0], out[1], out[2],
              ctx.scratch(quantized_lstm_scratch(q))},
             parts, flops);
  }

 private:
  void prepare(BuildContext& ctx) {
    const Desc *w = ctx.constant_desc(kW), *r = ctx.constant_desc(kR);
    if (!w || !r) return refuse("weights that are not constant");
    w_ = matrix(*w, "W");
    r_ = matrix(*r, "R");
    const int64_t hidden = r->shape[1];
    check_model(r->shape[2] == kGates * hidden && w->shape[2] == kGates * hidden, "W ", *w, " and R ", *r,
                " do not have 4 gates of one size");
    check_model(attributes_.hidden < 0 || attributes_.hidden == hidden, "hidden_size ", attributes_.hidden,
                " does not fit R ", *r);
    for (int i : {kB, kP, kWScale, kWZero, kRScale, kRZero})
      if (ctx.has_input(i) && !ctx.constant(i)) return refuse(words("input ", i, " that is not constant"));
    const void* packed_w = ctx.packed(kW, matrix_packing(w_, gemm_.nr));
    const void* packed_r = ctx.packed(kR, matrix_packing(r_, gemm_.nr));
    for (int64_t d = 0; d < attributes_.directions; ++d) {
      QuantizedLstmWeights& out = weights_[d];
      out.w = static_cast<const char*>(packed_w) + d * w_.bytes(gemm_.nr);
      out.r = static_cast<const char*>(packed_r) + d * r_.bytes(gemm_.nr);
      out.w_scale = scales(ctx, kWScale, d);
      out.r_scale = scales(ctx, kRScale, d);
      out.w_zero = zeros(ctx, kWZero, d, w_.is_unsigned);
      out.r_zero = zeros(ctx, kRZero, d, r_.is_unsigned);
      out.bias = bias(ctx, d);
      out.peephole = peepholes(ctx, d);
    }
  }

  void refuse(std::string why) { refusal_ = std::move(why); }

  Matrix matrix(const Desc& d, const char* name) const {
    check_model(
        (d.dtype == DType::s8 || d.dtype == DType::u8) && d.shape.rank() == 3 && d.shape[0] == attributes_.directions,
        name, " is ", d, ", needed: int8 or uint8 [", attributes_.directions, ", depth, 4 hidden]");
    return {d.shape[0], d.shape[1], d.shape[2] / kGates, d.dtype == DType::u8};
  }

  template <class T>
  T* keep(int64_t n) {
    const auto bytes = static_cast<size_t>(n) * sizeof(T);
    memory_.push_back(allocate_bytes(bytes));
    std::memset(memory_.back().get(), 0, bytes);
    return static_cast<T*>(memory_.back().get());
  }

  // A constant of `n` elements per direction, or of 1 where that is allowed; returns its direction's first element.
  template <class T>
  const T* values(BuildContext& ctx, int input, int64_t d, int64_t n, bool one_allowed, int64_t* step) {
    const Tensor* t = ctx.constant(input);
    const int64_t D = attributes_.directions, given = t ? t->desc.elements() : 0;
    check_model(t && size_of(t->desc.dtype) == sizeof(T) && (sizeof(T) == 1 || t->desc.dtype == DType::f32) &&
                    (given == D * n || (one_allowed && given == D)),
                "input ", input, " is ", t ? words(t->desc) : "missing", ", needed: ", D * n, " elements");
    *step = given == D * n ? 1 : 0;
    return t->as<T>() + d * given / D;
  }

  const float* scales(BuildContext& ctx, int input, int64_t d) {
    int64_t step = 0;
    const float* s = values<float>(ctx, input, d, kGates * r_.depth, true, &step);
    auto* out = keep<float>(w_.columns());
    each_column(r_.depth, [&](int64_t to, int64_t from) { out[to] = s[from * step]; });
    return out;
  }

  const int32_t* zeros(BuildContext& ctx, int input, int64_t d, bool is_unsigned) {
    auto* out = keep<int32_t>(w_.columns());
    int64_t step = 0;
    const uint8_t* z = ctx.has_input(input) ? values<uint8_t>(ctx, input, d, kGates * r_.depth, true, &step) : nullptr;
    bool any = false;
    each_column(r_.depth, [&](int64_t to, int64_t from) {
      const uint8_t v = z ? z[from * step] : 0;
      out[to] = is_unsigned ? v - 128 : static_cast<int8_t>(v);
      any |= out[to] != 0;
    });
    return any ? out : nullptr;
  }

  const float* bias(BuildContext& ctx, int64_t d) {
    if (!ctx.has_input(kB)) return nullptr;
    int64_t step = 0;
    const int64_t n = kGates * r_.depth;
    const float* b = values<float>(ctx, kB, d, 2 * n, false, &step);
    auto* out = keep<float>(w_.columns());
    each_column(r_.depth, [&](int64_t to, int64_t from) { out[to] = b[from] + b[n + from]; });
    return out;
  }

  const float* peepholes(BuildContext& ctx, int64_t d) {
    if (!ctx.has_input(kP)) return nullptr;
    int64_t step = 0;
    const float* p = values<float>(ctx, kP, d, 3 * r_.depth, false, &step);
    const int64_t width = rnn_slices(r_.depth) * kUnits;
    auto* out = keep<float>(3 * width);
    for (int i = 0; i < 3; ++i)
      std::memcpy(out + i * width, p + i * r_.depth, static_cast<size_t>(r_.depth) * sizeof(float));
    return out;
  }

  void set_extents(RnnProblem& p, int64_t steps, int64_t batch) const {
    const int64_t D = w_.directions, H = r_.depth;
    p.hidden = H;
    p.steps = steps;
    p.batch = batch;
    p.y_step = D * batch * H;
    p.y_direction = p.state_direction = batch * H;
    p.y_batch = p.state_batch = H;
  }

  static void check_states(PlanContext& ctx, const Shape& state, int64_t batch) {
    for (int i : {kH0, kC0})
      if (ctx.has_input(i))
        check(ctx.dtype(i) == DType::f32 && ctx.shape(i) == state, "input ", i, " is ", ctx.input(i),
              ", needed: float32 ", state);
    if (ctx.has_input(kLengths))
      check(ctx.dtype(kLengths) == DType::s32 && ctx.shape(kLengths) == Shape{batch}, "sequence_lens is ",
            ctx.input(kLengths), ", needed: int32 ", Shape{batch});
  }

  RnnAttributes attributes_;
  const GemmU8S8& gemm_;
  std::string refusal_;
  Matrix w_{}, r_{};
  QuantizedLstmWeights weights_[2] = {};
  std::vector<std::shared_ptr<void>> memory_;
};

}  // namespace

std::unique_ptr<Op> make_dynamic_quantize_lstm(BuildContext& c) { return std::make_unique<DynamicQuantizeLstm>(c); }

}  // namespace fi
