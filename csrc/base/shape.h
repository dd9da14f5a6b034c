// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>
#include <string>

#include "csrc/base/dtype.h"
#include "csrc/base/error.h"

namespace fi {

constexpr int kMaxRank = 12;

// A concrete shape: rank and extents, no allocation. Extents are >= 0; the element count is checked not to overflow.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) { assign(dims.begin(), dims.end()); }
  template <class It>
  Shape(It first, It last) {
    assign(first, last);
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  int64_t back() const { return dims_[rank_ - 1]; }
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }
  void push(int64_t d) {
    check(rank_ < kMaxRank, "rank above ", kMaxRank, " is not supported");
    dims_[rank_++] = d;
  }
  void insert(int at, int64_t d);
  void erase(int at);
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (dims_[i] != o.dims_[i]) return false;
    return true;
  }
  // Product of dims[first..last); throws InputError beyond 2^48 elements or for a negative extent.
  int64_t elements(int first, int last) const;
  int64_t elements() const { return elements(0, rank_); }

 private:
  template <class It>
  void assign(It first, It last) {
    for (; first != last; ++first) push(*first);
  }
  int rank_ = 0;
  int64_t dims_[kMaxRank] = {};
};

std::ostream& operator<<(std::ostream&, const Shape&);

// axis in [-rank, rank) → [0, rank)
int normalize_axis(int64_t axis, int rank);
// Numpy broadcasting of two shapes.
Shape broadcast(const Shape& a, const Shape& b);
// Row-major strides in elements.
Shape strides_of(const Shape&);

// What a tensor is, without its data.
struct Desc {
  DType dtype = DType::none;
  Shape shape;
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype); }
};
std::ostream& operator<<(std::ostream&, const Desc&);

}  // namespace fi
