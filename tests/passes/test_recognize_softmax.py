# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.recognize_softmax import recognize_softmax

from .graphs import check, parse, random


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("shifted", [True, False])
def test_written_out(axis: int, shifted: bool) -> None:
    shift = "m = ReduceMax(x, axes) s = Sub(x, m)" if shifted else "s = Identity(x)"
    model = parse(
        f"g (float[2,3,4] x, int64[1] axes) => (float[2,3,4] y) {{ {shift} e = Exp(s) t = ReduceSum(e, axes) y = Div(e, t) }}",
        axes=np.array([axis]),
    )
    after = check(model, recognize_softmax, {"x": random(2, 3, 4)})
    assert after["Softmax"] == 1 and after["Exp"] == 0


def test_the_maximum_over_other_axes_stays_outside() -> None:
    model = parse(
        """g (float[2,3,4] x, int64[1] a, int64[1] b) => (float[2,3,4] y) {
        m = ReduceMax(x, a) s = Sub(x, m) e = Exp(s) t = ReduceSum(e, b) y = Div(e, t) }""",
        a=np.array([1]), b=np.array([2]),
    )  # fmt: skip
    assert check(model, recognize_softmax, {"x": random(2, 3, 4)}) == {"ReduceMax": 1, "Sub": 1, "Softmax": 1}
