# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.fold_pad import fold_pad

from .graphs import check, parse, random, run_onnxruntime


@pytest.mark.parametrize(
    ("pad", "count"),
    [
        ("Pad(x, p)", 1),
        ("Pad(x, p, zero)", 1),
        ("Pad(x, q, , axes)", 1),
        ("Pad(x, p, one)", 2),
        ('Pad<mode="reflect">(x, p)', 2),
        ("Pad(x, channels)", 2),
        ("Pad(x, negative)", 2),
    ],
)
def test_forms(pad: str, count: int) -> None:
    constants = {
        "w": random(5, 4, 3, 3), "p": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "q": np.array([1, 2, 0, 1]), "axes": np.array([-1, 2]),
        "zero": np.array(0, np.float32), "one": np.array(1, np.float32), "channels": np.array([0, 1, 0, 0, 0, -1, 0, 0]),
        "negative": np.array([0, 0, -1, 0, 0, 0, 0, 0]),
    }  # fmt: skip
    kinds = {"f": "float", "i": "int64"}
    declared = "".join(f", {kinds[v.dtype.kind]}[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    model = parse(
        f"g (float[2,4,6,5] x{declared}) => (float[A,B,C,D] y) {{ a = {pad} y = Conv<pads=[1,0,0,1]>(a, w) }}",
        **constants,
    )
    # onnx.reference refuses negative padding
    assert sum(check(model, fold_pad, {"x": random(2, 4, 6, 5)}, run=run_onnxruntime).values()) == count
