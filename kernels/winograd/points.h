// SPDX-License-Identifier: Apache-2.0
// The interpolation points of F(m, 3): 0, ±p for each p listed, ∞. The vector transforms and the packing both follow
// them.
#pragma once

namespace fi {

template <int M>
struct WinogradPoints;
template <>
struct WinogradPoints<4> {
  static constexpr int pairs = 2;
  static constexpr double p[pairs] = {0.75, 1.5};
};
template <>
struct WinogradPoints<6> {
  static constexpr int pairs = 3;
  static constexpr double p[pairs] = {0.5, 1, 2};
};

}  // namespace fi
