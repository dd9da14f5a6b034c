// SPDX-License-Identifier: Apache-2.0
// A convolution's output pixels in classes that share their taps. A plain convolution has one class. A transposed one
// with strides s has s0 · s1 · s2: output o takes tap k where (o + pad - k · dilation) is a multiple of s, so only the
// residue (o + pad) mod s matters, and every tap belongs to exactly one class. Weights are packed class by class.
#pragma once
#include "kernels/conv/geometry.h"

namespace fi {

class ClassIterator {
 public:
  ClassIterator(const Geometry& g, bool transposed) : g_(g), transposed_(transposed) {
    for (int a = 0; a < 3; ++a) classes_[a] = transposed ? g.stride[a] : 1;
  }

  bool next() {
    first_ += taps_;
    if (started_) {
      int a = 2;
      while (a >= 0 && ++residue_[a] == classes_[a]) residue_[a--] = 0;
      if (a < 0) return false;
    }
    started_ = true;
    taps_ = 1;
    for (int a = 0; a < 3; ++a) {
      int64_t n = 0;
      for (int64_t k = 0; k < g_.kernel[a]; ++k) n += holds(a, k);
      taps_ *= n;
    }
    return true;
  }

  int64_t taps() const { return taps_; }
  int64_t first_tap() const { return first_; }  // in the packed order
  // Distance of this class's pixels along a row, in the output and in the input.
  int64_t step() const { return classes_[2]; }
  int64_t in_step() const { return transposed_ ? 1 : g_.stride[2]; }
  bool has(int axis, int64_t o) const { return modulo(o + g_.pad[axis], classes_[axis]) == residue_[axis]; }
  // The class's first position >= o on the last axis.
  int64_t first_at_least(int64_t o) const { return o + modulo(residue_[2] - o - g_.pad[2], classes_[2]); }
  int64_t source(int axis, int64_t o, int64_t k) const {
    return transposed_ ? (o + g_.pad[axis] - k * g_.dilation[axis]) / g_.stride[axis]
                       : o * g_.stride[axis] - g_.pad[axis] + k * g_.dilation[axis];
  }
  template <class F>
  void each_tap(F f) const {
    for (int64_t kd = 0; kd < g_.kernel[0]; ++kd) {
      if (!holds(0, kd)) continue;
      for (int64_t kh = 0; kh < g_.kernel[1]; ++kh) {
        if (!holds(1, kh)) continue;
        for (int64_t kw = 0; kw < g_.kernel[2]; ++kw)
          if (holds(2, kw)) f(kd, kh, kw);
      }
    }
  }

 private:
  bool holds(int a, int64_t k) const { return !transposed_ || k * g_.dilation[a] % classes_[a] == residue_[a]; }
  static int64_t modulo(int64_t a, int64_t s) { return (a % s + s) % s; }

  Geometry g_;
  bool transposed_, started_ = false;
  int64_t classes_[3], residue_[3] = {}, taps_ = 0, first_ = 0;
};

}  // namespace fi
