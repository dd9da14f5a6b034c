// SPDX-License-Identifier: Apache-2.0
// The interpreter of pointwise.h over the vector type of one instruction set.
#pragma once
#include "kernels/pointwise/tile_ops.h"

namespace fi::FI_ISA {

static constexpr int kSplatBytes = 64;

FI_INLINE int64_t size_of_type(TileType t) {
  switch (t) {
    case TileType::f32:
    case TileType::s32:
      return 4;
    case TileType::f16:
    case TileType::bf16:
    case TileType::u16:
    case TileType::s16:
      return 2;
    default:
      return 1;
  }
}

// The lambdas take the number of lanes or, for a whole vector, nothing.
template <class T, class Load>
FI_INLINE void widen_each(const void* x, float* y, int n, Load load_lanes) {
  int i = 0;
  for (; i + VF::W <= n; i += VF::W) store(y + i, load_lanes(static_cast<const T*>(x) + i));
  if (const int left = n - i; left > 0) store(y + i, load_lanes(static_cast<const T*>(x) + i, left), left);
}
// Fewer than 8 bits: sign 8 stands for int4, 2 for int2, 0 for unsigned ones.
struct LowBits {
  int32_t mask, sign;
};
FI_INLINE LowBits low_bits(TileType t) {
  return {t == TileType::u4 || t == TileType::s4 ? 15 : 3, t == TileType::s4 ? 8 : t == TileType::s2 ? 2 : 0};
}

// Any type from f16 on → float32.
static void widen(TileType t, const void* x, float* y, int n) {
  switch (t) {
    case TileType::f16:
      return widen_each<uint16_t>(x, y, n,
                                  [](const uint16_t* p, auto... left) FI_FORCED { return load_f16(p, left...); });
    case TileType::bf16:
      return widen_each<uint16_t>(x, y, n,
                                  [](const uint16_t* p, auto... left) FI_FORCED { return load_bf16(p, left...); });
    case TileType::u8:
      return widen_each<uint8_t>(x, y, n, [](const uint8_t* p, auto... left) FI_FORCED { return load_u8(p, left...); });
    case TileType::s8:
      return widen_each<int8_t>(x, y, n, [](const int8_t* p, auto... left) FI_FORCED { return load_s8(p, left...); });
    case TileType::u16:
      return widen_each<uint16_t>(x, y, n,
                                  [](const uint16_t* p, auto... left) FI_FORCED { return load_u16(p, left...); });
    case TileType::s16:
      return widen_each<int16_t>(x, y, n,
                                 [](const int16_t* p, auto... left) FI_FORCED { return load_s16(p, left...); });
    case TileType::u4:
    case TileType::s4:
    case TileType::u2:
    case TileType::s2: {
      const VI mask = set1i(low_bits(t).mask), sign = set1i(low_bits(t).sign);
      return widen_each<uint8_t>(x, y, n, [mask, sign](const uint8_t* p, auto... left) FI_FORCED {
        return to_float(((to_int(load_u8(p, left...)) & mask) ^ sign) - sign);
      });
    }
    default:
      return widen_each<int32_t>(x, y, n,
                                 [](const int32_t* p, auto... left) FI_FORCED { return load_s32(p, left...); });
  }
}

template <class T, class Store>
FI_INLINE void narrow_each(const float* x, void* y, int n, Store store_lanes) {
  int i = 0;
  for (; i + VF::W <= n; i += VF::W) store_lanes(static_cast<T*>(y) + i, load(x + i));
  if (const int left = n - i; left > 0) store_lanes(static_cast<T*>(y) + i, load(x + i, left), left);
}
template <class T>
FI_INLINE void store_words(T* y, VF v, float low, float high, int n = VF::W) {
  int32_t lanes[VF::W];
  store(lanes, to_int(min(max(v, set1(low)), set1(high))));
  for (int i = 0; i < n; ++i) y[i] = static_cast<T>(lanes[i]);
}
static void narrow(TileType t, const float* x, void* y, int n) {
  switch (t) {
    case TileType::f16:
      return narrow_each<uint16_t>(x, y, n,
                                   [](uint16_t* p, VF v, auto... left) FI_FORCED { store_f16(p, v, left...); });
    case TileType::bf16:
      return narrow_each<uint16_t>(x, y, n,
                                   [](uint16_t* p, VF v, auto... left) FI_FORCED { store_bf16(p, v, left...); });
    case TileType::u8:
      return narrow_each<uint8_t>(x, y, n, [](uint8_t* p, VF v, auto... left) FI_FORCED { store_u8(p, v, left...); });
    case TileType::s8:
      return narrow_each<int8_t>(x, y, n, [](int8_t* p, VF v, auto... left) FI_FORCED { store_s8(p, v, left...); });
    case TileType::u16:
      return narrow_each<uint16_t>(
          x, y, n, [](uint16_t* p, VF v, auto... left) FI_FORCED { store_words(p, v, 0.f, 65535.f, left...); });
    case TileType::u4:
    case TileType::s4:
    case TileType::u2:
    case TileType::s2: {
      const LowBits bits = low_bits(t);
      const VF low = set1(static_cast<float>(-bits.sign)), high = set1(static_cast<float>(bits.mask - bits.sign));
      return narrow_each<uint8_t>(x, y, n, [bits, low, high](uint8_t* p, VF v, auto... left) FI_FORCED {
        store_u8(p, to_float(to_int(min(max(v, low), high)) & set1i(bits.mask)), left...);
      });
    }
    default:
      return narrow_each<int16_t>(
          x, y, n, [](int16_t* p, VF v, auto... left) FI_FORCED { store_words(p, v, -32768.f, 32767.f, left...); });
  }
}

template <class T>
static void splat(T value, void* to, int n) {
  T* y = static_cast<T*>(to);
  for (int i = 0; i < n; ++i) y[i] = value;
}
template <class T>
static void copy_run(const T* x, T* y, int64_t stride, int64_t n) {
  if (stride == 0) {
    const T value = *x;
    for (int64_t i = 0; i < n; ++i) y[i] = value;
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i];
  }
}

// One call: the state of a walk over this part's tiles.
class PointwiseRun {
 public:
  PointwiseRun(const PointwiseParams& p, void* const* args) : p_(p), program_(*p.program), args_(args) {
    for (int i = 0; i < program_.immediates; ++i) {
      splat(program_.immediate[i], immediates_[i], kSplatBytes / 4);
      value_[program_.inputs + i] = {immediates_[i], 0};
    }
    const int first = program_.inputs + program_.immediates;
    for (int i = 0; i < program_.instructions; ++i) {
      const int slot = program_.code[i].slot;
      value_[first + i] = {slot < kTileSlots ? slots_[slot] : nullptr, ~size_t{0}};
    }
    for (int i = 0; i < program_.inputs; ++i)
      if (p.read[i] == TileRead::scalar) splat_input(i, 0);
    if (p.flat) {
      for (int i = 0; i < program_.inputs; ++i)
        if (p.read[i] == TileRead::periodic) lay_out(i, 0, p.tile);
    }
  }

  void run(int64_t first_tile, int64_t last_tile) {
    if (first_tile >= last_tile) return;
    p_.flat ? run_flat(first_tile, last_tile) : run_rows(first_tile, last_tile);
  }

 private:
  const char* input(int i) const { return static_cast<const char*>(args_[i]); }

  void run_flat(int64_t first, int64_t last) {
    int64_t total = 1;
    for (int d = 0; d < p_.rank; ++d) total *= p_.extent[d];
    for (int64_t t = first; t < last; ++t) {
      const int64_t at = t * p_.tile;
      const int n = static_cast<int>(total - at < p_.tile ? total - at : p_.tile);
      for (int i = 0; i < program_.inputs; ++i) {
        if (p_.read[i] == TileRead::dense) point_at(i, at, n);
        if (p_.read[i] == TileRead::strided) lay_out(i, at, n);
      }
      run_tile(at, n);
    }
  }

  void run_rows(int64_t first, int64_t last) {
    const int64_t inner = p_.extent[p_.rank - 1], chunks = (inner + p_.tile - 1) / p_.tile;
    int64_t row = first / chunks, chunk = first % chunks;
    int64_t index[kTileRank];
    for (int64_t d = p_.rank - 2, rest = row; d >= 0; --d) {
      index[d] = rest % p_.extent[d];
      rest /= p_.extent[d];
    }
    bool new_row = true;
    for (int64_t t = first; t < last; ++t) {
      const int64_t at = chunk * p_.tile;
      const int n = static_cast<int>(inner - at < p_.tile ? inner - at : p_.tile);
      for (int i = 0; i < program_.inputs; ++i) read_row(i, index, row * inner, at, n, new_row);
      run_tile(row * inner + at, n);
      new_row = ++chunk == chunks;
      if (!new_row) continue;
      chunk = 0;
      ++row;
      for (int d = p_.rank - 2; d >= 0 && ++index[d] == p_.extent[d]; --d) index[d] = 0;
    }
  }

  void read_row(int i, const int64_t* index, int64_t row_start, int64_t at, int n, bool new_row) {
    if (p_.read[i] == TileRead::scalar) return;
    if (p_.read[i] == TileRead::dense) return point_at(i, row_start + at, n);
    const int64_t* stride = strides_of_input(p_, i);
    int64_t offset = 0;
    for (int d = 0; d < p_.rank - 1; ++d) offset += index[d] * stride[d];
    if (stride[p_.rank - 1] != 0) return point_at(i, offset + at, n);
    if (new_row) splat_input(i, offset);
  }

  // n elements of the input from `offset` on, as they lie in memory.
  void point_at(int i, int64_t offset, int n) {
    const char* p = input(i) + offset * size_of_type(p_.in_type[i]);
    if (p_.in_type[i] >= TileType::f16) {
      widen(p_.in_type[i], p, laid_out_[i], n);
      p = reinterpret_cast<const char*>(laid_out_[i]);
    }
    value_[i] = {p, ~size_t{0}};
  }

  void splat_input(int i, int64_t offset) {
    const char* p = input(i) + offset * size_of_type(p_.in_type[i]);
    if (p_.in_type[i] == TileType::boolean) {
      splat(*reinterpret_cast<const uint8_t*>(p), laid_out_[i], kSplatBytes / 4);
    } else {
      float value;
      if (p_.in_type[i] == TileType::f32) {
        std::memcpy(&value, p, 4);
      } else {
        widen(p_.in_type[i], p, &value, 1);
      }
      splat(value, laid_out_[i], kSplatBytes / 4);
    }
    value_[i] = {laid_out_[i], 0};
  }

  // The elements that belong to the output's flat range [at, at + n), in its order.
  void lay_out(int i, int64_t at, int n) {
    const int64_t* stride = strides_of_input(p_, i);
    const int last = p_.rank - 1;
    const TileType type = p_.in_type[i];
    const int64_t bytes = size_of_type(type);
    const bool narrow_type = type >= TileType::f16;
    alignas(64) char staged[kTile * 4];
    int64_t index[kTileRank], offset = 0, rest = at;
    for (int d = last; d >= 0; --d) {
      index[d] = rest % p_.extent[d];
      rest /= p_.extent[d];
      offset += index[d] * stride[d];
    }
    for (int done = 0; done < n;) {
      const int64_t left = p_.extent[last] - index[last], run = left < n - done ? left : n - done;
      const char* from = input(i) + offset * bytes;
      char* const place = (narrow_type ? staged : reinterpret_cast<char*>(laid_out_[i])) + done * bytes;
      if (bytes == 4) {
        copy_run(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(place), stride[last], run);
      } else if (bytes == 1) {
        copy_run(reinterpret_cast<const uint8_t*>(from), reinterpret_cast<uint8_t*>(place), stride[last], run);
      } else {
        copy_run(reinterpret_cast<const uint16_t*>(from), reinterpret_cast<uint16_t*>(place), stride[last], run);
      }
      done += static_cast<int>(run);
      offset -= index[last] * stride[last];
      index[last] = 0;
      for (int d = last - 1; d >= 0; --d) {
        offset += stride[d];
        if (++index[d] < p_.extent[d]) break;
        offset -= stride[d] * p_.extent[d];
        index[d] = 0;
      }
    }
    if (narrow_type) widen(type, staged, laid_out_[i], n);
    value_[i] = {laid_out_[i], ~size_t{0}};
  }

  void run_tile(int64_t at, int n) {
    const int first = program_.inputs + program_.immediates;
    for (int i = 0; i < program_.instructions; ++i) {
      const TileInstruction& code = program_.code[i];
      TileArg& y = value_[first + i];
      if (code.slot >= kTileSlots) y.p = place_of_output(code.slot - kTileSlots, at);
      kTileFns[static_cast<int>(code.op)](value_[code.a], value_[code.b < 0 ? code.a : code.b],
                                          value_[code.c < 0 ? code.a : code.c], const_cast<void*>(y.p), n);
    }
    for (int j = 0; j < program_.outputs; ++j)
      if (p_.out_type[j] >= TileType::f16)
        narrow(p_.out_type[j], wide_output_[j],
               static_cast<char*>(args_[program_.inputs + j]) + at * size_of_type(p_.out_type[j]), n);
  }

  void* place_of_output(int j, int64_t at) {
    if (p_.out_type[j] >= TileType::f16) return wide_output_[j];
    return static_cast<char*>(args_[program_.inputs + j]) + at * size_of_type(p_.out_type[j]);
  }

  const PointwiseParams& p_;
  const TileProgram& program_;
  void* const* args_;
  TileArg value_[kTileInputs + kTileImmediates + kTileInstructions];
  // Only what a program uses is ever touched, so the unused part costs no cache.
  alignas(64) float immediates_[kTileImmediates][kSplatBytes / 4];
  alignas(64) float laid_out_[kTileInputs][kTile];
  alignas(64) float slots_[kTileSlots][kTile];
  alignas(64) float wide_output_[kTileOutputs][kTile];
};

Status run_pointwise(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PointwiseParams*>(params);
  const Range r = part_of(count_tiles(p), part, parts);
  PointwiseRun run(p, args);
  run.run(r.begin, r.end);
  return Status::ok;
}

}  // namespace fi::FI_ISA
