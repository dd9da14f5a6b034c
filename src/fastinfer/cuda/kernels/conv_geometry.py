# SPDX-License-Identifier: Apache-2.0
"""Windows over one to three spatial axes: what convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """Axes are depth, height, width; missing ones lead with extent 1. pad: elements before the image (the end is settled by
    `out`), possibly negative."""

    size: Triple
    out: Triple
    kernel: Triple
    stride: Triple = (1, 1, 1)
    dilation: Triple = (1, 1, 1)
    pad: Triple = (0, 0, 0)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.kernel[2]

    @property
    def pixels(self) -> int:
        """Of one output image."""
        return self.out[0] * self.out[1] * self.out[2]

    @property
    def dense(self) -> bool:
        """Output pixel i reads input pixel i and no other."""
        return self.taps == 1 and self.size == self.out and self.stride == (1, 1, 1) and self.pad == (0, 0, 0)


def triple(values: Sequence[int], fill: int = 1) -> Triple:
    """1 to 3 values, aligned at the width."""
    filled = [fill] * (3 - len(values)) + [int(v) for v in values]
    return filled[0], filled[1], filled[2]


def window_of(
    size: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
) -> Window:
    """From ONNX's attributes, for the extents that the planner computed (as csrc/ops/spatial.cc does)."""
    n = len(size)
    stride, dilation = list(strides or [1] * n), list(dilations or [1] * n)
    before = list(pads or [0] * (2 * n))[:n]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
        total = [max(0, r - extent) for r, extent in zip(reach, size, strict=True)]
        before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
    elif auto_pad == "VALID":
        before = [0] * n
    return Window(triple(size), triple(out), triple(kernel), triple(stride), triple(dilation), triple(before, 0))
