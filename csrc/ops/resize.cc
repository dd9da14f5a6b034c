// SPDX-License-Identifier: Apache-2.0
// Resize, standard and channels last.
#include "kernels/resize/resize.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "csrc/ops/copy_step.h"
#include "csrc/ops/op.h"

namespace fi {
namespace {

// Table cells of one axis beyond which an input is taken for hostile.
constexpr int64_t kMaxTable = int64_t{1} << 28;

template <class E, size_t N>
E parse(const char* attribute, const std::string& value, const std::pair<const char*, E> (&rows)[N]) {
  for (const auto& [name, e] : rows)
    if (value == name) return e;
  throw ModelError(words(attribute, " '", value, "' is unknown"));
}

// A float list that is known or becomes known; empty if absent.
std::vector<double> floats(PlanContext& ctx, int i) {
  if (!ctx.has_input(i) || ctx.shape(i).elements() == 0) return {};
  const void* data = ctx.require(i);
  const int64_t n = ctx.shape(i).elements();
  if (ctx.dtype(i) == DType::f32) return {static_cast<const float*>(data), static_cast<const float*>(data) + n};
  if (ctx.dtype(i) == DType::f64) return {static_cast<const double*>(data), static_cast<const double*>(data) + n};
  ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
}

class Resize final : public Op {
 public:
  explicit Resize(BuildContext& b) {
    const Attributes& a = b.node.attributes;
    channels_last_ = a.i("channels_last", 0) != 0;
    axes_ = a.ints("axes");
    policy_ = a.s("keep_aspect_ratio_policy", "stretch");
    check_model(policy_ == "stretch" || policy_ == "not_larger" || policy_ == "not_smaller",
                "keep_aspect_ratio_policy '", policy_, "' is unknown");
    extrapolation_ = a.f("extrapolation_value", 0);
    form_.mode = parse<ResizeMode>(
        "mode", a.s("mode", "nearest"),
        {{"nearest", ResizeMode::nearest}, {"linear", ResizeMode::linear}, {"cubic", ResizeMode::cubic}});
    form_.nearest = parse<ResizeNearest>("nearest_mode", a.s("nearest_mode", "round_prefer_floor"),
                                         {{"round_prefer_floor", ResizeNearest::round_prefer_floor},
                                          {"round_prefer_ceil", ResizeNearest::round_prefer_ceil},
                                          {"floor", ResizeNearest::floor},
                                          {"ceil", ResizeNearest::ceil}});
    using C = ResizeCoordinates;
    form_.coordinates = parse<C>("coordinate_transformation_mode", a.s("coordinate_transformation_mode", "half_pixel"),
                                 {{"half_pixel", C::half_pixel},
                                  {"half_pixel_symmetric", C::half_pixel_symmetric},
                                  {"pytorch_half_pixel", C::pytorch_half_pixel},
                                  {"align_corners", C::align_corners},
                                  {"asymmetric", C::asymmetric},
                                  {"tf_crop_and_resize", C::tf_crop_and_resize}});
    form_.antialias = a.i("antialias", 0) != 0;
    check_model(!form_.antialias || form_.mode != ResizeMode::nearest, "antialias goes with linear and cubic only");
    form_.exclude_outside = a.i("exclude_outside", 0) != 0;
    form_.cubic_a = a.f("cubic_coeff_a", -0.75f);
  }

  void plan(PlanContext& ctx) const override {
    const DType type = ctx.dtype(0);
    const bool bytes = type == DType::u8 || type == DType::s8;
    if (form_.mode != ResizeMode::nearest && type != DType::f32 && !bytes)
      ctx.not_native(words("interpolation of ", name_of(type)));
    if (size_of(type) == 0 || size_of(type) > 8) ctx.not_native(words("resizing of ", name_of(type)));
    const std::vector<ResizeAxis> axes = resolve(ctx);
    Shape out = ctx.shape(0);
    for (int a = 0; a < out.rank(); ++a) out[a] = axes[a].out;
    const int64_t n = out.elements(), n_in = ctx.shape(0).elements();
    const bool changes = std::any_of(axes.begin(), axes.end(), changed);
    if (n > 0 && !changes) return ctx.alias(0, 0, type, out);
    const Operand y = ctx.output(0, type, out);
    if (n == 0) return;
    check(n_in > 0, "cannot resize ", ctx.shape(0), " to ", out);
    if (form_.mode == ResizeMode::nearest || !bytes) return passes(ctx, axes, type, ctx.in(0), y);
    const Operand wide = ctx.scratch(static_cast<size_t>(n_in) * 4), result = ctx.scratch(static_cast<size_t>(n) * 4);
    const int64_t s8 = type == DType::s8;
    ctx.step("resize_widen", widen_step, Bytes{n_in, s8}, {ctx.in(0), wide}, ctx.parts_for(static_cast<double>(n_in)));
    passes(ctx, axes, DType::f32, wide, result);
    ctx.step("resize_narrow", narrow_step, Bytes{n, s8}, {result, y}, ctx.parts_for(static_cast<double>(n)));
  }

 private:
  struct Bytes {
    int64_t n, is_signed;
  };
  static Status widen_step(const void* params, void* const* args, int part, int parts) {
    const auto& p = *static_cast<const Bytes*>(params);
    auto* y = static_cast<float*>(args[1]);
    const auto [begin, end] = part_of(p.n, part, parts, 64);
    if (p.is_signed)
      for (int64_t i = begin; i < end; ++i) y[i] = static_cast<const int8_t*>(args[0])[i];
    else
      for (int64_t i = begin; i < end; ++i) y[i] = static_cast<const uint8_t*>(args[0])[i];
    return Status::ok;
  }
  static Status narrow_step(const void* params, void* const* args, int part, int parts) {
    const auto& p = *static_cast<const Bytes*>(params);
    const auto* x = static_cast<const float*>(args[0]);
    const auto [begin, end] = part_of(p.n, part, parts, 64);
    const float lo = p.is_signed ? -128.f : 0.f, hi = p.is_signed ? 127.f : 255.f;
    for (int64_t i = begin; i < end; ++i) {
      const auto v = static_cast<int>(std::nearbyint(std::clamp(x[i], lo, hi)));
      static_cast<uint8_t*>(args[1])[i] = static_cast<uint8_t>(v);
    }
    return Status::ok;
  }

  bool crops() const { return form_.coordinates == ResizeCoordinates::tf_crop_and_resize; }
  static bool changed(const ResizeAxis& q) {
    const bool whole = q.coordinates != ResizeCoordinates::tf_crop_and_resize || (q.roi_begin == 0 && q.roi_end == 1);
    return q.in != q.out || std::abs(q.scale - 1) > 1e-9 || !whole;
  }

  // The axis of the data for axis a of [N, C, spatial...].
  int physical(int a, int rank) const { return !channels_last_ || a == 0 ? a : a == 1 ? rank - 1 : a - 1; }

  std::vector<ResizeAxis> resolve(PlanContext& ctx) const {
    const Shape& in = ctx.shape(0);
    const int rank = in.rank();
    std::vector<int> axes;
    if (axes_.empty())
      for (int a = 0; a < rank; ++a) axes.push_back(a);
    for (int64_t a : axes_) {
      axes.push_back(normalize_axis(a, rank));
      check_model(std::count(axes.begin(), axes.end(), axes.back()) == 1, "axes has ", a, " twice");
    }
    const size_t n = axes.size();
    const std::vector<double> scales = floats(ctx, 2);
    std::vector<int64_t> sizes;
    if (ctx.has_input(3) && ctx.shape(3).elements() > 0) sizes = ctx.require_ints(3);
    check(scales.empty() != sizes.empty(), "exactly one of scales and sizes is needed, given ", scales.size(),
          " scales and ", sizes.size(), " sizes");
    check(scales.empty() || scales.size() == n, "scales has ", scales.size(), " values, needed ", n);
    check(sizes.empty() || sizes.size() == n, "sizes has ", sizes.size(), " values, needed ", n);
    const std::vector<double> roi = crops() ? floats(ctx, 1) : std::vector<double>{};
    check(!crops() || roi.size() == 2 * n, "roi has ", roi.size(), " values, needed ", 2 * n);
    std::vector<ResizeAxis> out(rank, form_);
    for (int a = 0; a < rank; ++a) out[a].in = out[a].out = in[a];
    double common = 0;
    for (size_t i = 0; i < n; ++i) {
      ResizeAxis& q = out[physical(axes[i], rank)];
      if (!scales.empty()) {
        check(scales[i] > 0 && std::isfinite(scales[i]), "scale ", scales[i], " is not positive");
        q.scale = scales[i];
        const double extent = std::floor(static_cast<double>(q.in) * scales[i]);
        check(extent < 2147483648.0, "resized extent ", extent, " is too large");
        q.out = static_cast<int64_t>(extent);
      } else {
        check(sizes[i] >= 0 && sizes[i] < (int64_t{1} << 31), "size ", sizes[i], " is out of range");
        q.out = sizes[i];
        q.scale = q.in > 0 ? static_cast<double>(q.out) / static_cast<double>(q.in) : 1;
        const bool less = policy_ == "not_larger" ? q.scale < common : q.scale > common;
        if (i == 0 || less) common = q.scale;
      }
      if (crops()) {
        q.roi_begin = roi[i];
        q.roi_end = roi[n + i];
      }
    }
    if (!sizes.empty() && policy_ != "stretch")
      for (size_t i = 0; i < n; ++i) {
        ResizeAxis& q = out[physical(axes[i], rank)];
        q.scale = common;
        const double extent = std::floor(common * static_cast<double>(q.in) + 0.5);
        check(extent < 2147483648.0, "resized extent ", extent, " is too large");
        q.out = static_cast<int64_t>(extent);
      }
    return out;
  }

  // Two neighbouring axes per pass, from the front.
  void passes(PlanContext& ctx, const std::vector<ResizeAxis>& axes, DType type, Operand x, Operand y) const {
    const int rank = static_cast<int>(axes.size());
    std::vector<int64_t> extent(rank);
    int last = 0;
    for (int a = 0; a < rank; ++a) {
      extent[a] = axes[a].in;
      if (changed(axes[a])) last = a;
    }
    for (int a = 0; a <= last; ++a) {
      if (!changed(axes[a])) continue;
      const bool pair = a < last && changed(axes[a + 1]);
      ResizeRows q;
      q.extrapolation = extrapolation_;
      for (int k = 0; k < a; ++k) q.outer *= extent[k];
      q.a_in = axes[a].in;
      q.a_out = extent[a] = axes[a].out;
      q.a_taps = resize_taps(axes[a]);
      const Operand table_a = table(ctx, axes[a]);
      Operand table_b = table_a;
      if (pair) {
        q.b_in = axes[a + 1].in;
        q.b_out = extent[a + 1] = axes[a + 1].out;
        q.b_taps = resize_taps(axes[a + 1]);
        table_b = table(ctx, axes[a + 1]);
      }
      for (int k = a + (pair ? 2 : 1); k < rank; ++k) q.inner *= extent[k];
      a += pair;
      const int64_t elements = q.outer * q.a_out * q.b_out * q.inner;
      const Operand to = a >= last ? y : ctx.scratch(static_cast<size_t>(elements) * size_of(type));
      add(ctx, q, type, {x, table_a, table_b, to});
      x = to;
    }
  }

  Operand table(PlanContext& ctx, const ResizeAxis& q) const {
    check(resize_taps(q) <= kMaxTable / std::max<int64_t>(q.out, 1), "resizing ", q.in, " to ", q.out, " needs ",
          resize_taps(q), " taps per output");
    const Operand t = ctx.scratch(resize_table_bytes(q));
    ctx.step("resize_table", resize_table_step, q, {t});
    return t;
  }

  void add(PlanContext& ctx, const ResizeRows& q, DType type, std::array<Operand, 4> args) const {
    if (form_.mode == ResizeMode::nearest) {
      ResizeNearestRows p{q, static_cast<int64_t>(size_of(type)), {}};
      extrapolate(ctx, type, p.extrapolation);
      ctx.step("resize_nearest", resize_nearest_step, p, args, ctx.parts_for(cost_of(q)));
      return;
    }
    const ResizeKernel kernel = select_resize(ctx.isa(), q);
    const int parts = ctx.parts_for(cost_of(q));
    ctx.step(kernel.name, kernel.run, q, {args[0], args[1], args[2], args[3], ctx.scratch(resize_scratch(q, parts))},
             parts,
             2.0 * static_cast<double>(q.outer * q.a_out * q.inner) *
                 static_cast<double>(q.b_in * q.a_taps + q.b_out * q.b_taps));
  }

  // The extrapolation value as an element.
  void extrapolate(PlanContext& ctx, DType type, uint8_t* bytes) const {
    if (!crops() || extrapolation_ == 0) return;
    const auto put = [&](auto v) { std::memcpy(bytes, &v, sizeof v); };
    switch (type) {
      case DType::f32:
        return put(extrapolation_);
      case DType::f64:
        return put(static_cast<double>(extrapolation_));
      case DType::u8:
        return put(static_cast<uint8_t>(std::clamp(extrapolation_, 0.f, 255.f)));
      case DType::s8:
        return put(static_cast<int8_t>(std::clamp(extrapolation_, -128.f, 127.f)));
      case DType::s32:
        return put(static_cast<int32_t>(std::clamp(extrapolation_, -2147483520.f, 2147483520.f)));
      default:
        ctx.not_native(words("extrapolation of ", name_of(type)));
    }
  }

  bool channels_last_ = false;
  std::vector<int64_t> axes_;
  std::string policy_;
  float extrapolation_ = 0;
  ResizeAxis form_;
};

}  // namespace

std::unique_ptr<Op> make_resize(BuildContext& b) { return std::make_unique<Resize>(b); }

}  // namespace fi
