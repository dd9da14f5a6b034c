# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.lower_attention import lower_attention

from .graphs import check, parse, random

FORMS = [
    ("Attention(q, k, v)", 5),
    ("Attention<scale=0.2, softcap=2.0>(q, k, v)", 5),
    ("Attention(q, k, v, m)", 5),
    ("Attention(q, k, v, keep)", 5),
    ("Attention<is_causal=1>(q, k, v)", 4),
]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("call", "keys"), FORMS)
def test_forms(call: str, keys: int, flat: bool) -> None:
    inputs = {"q": random(2, 4, 4, 8), "k": random(2, 2, keys, 8, seed=1), "v": random(2, 2, keys, 6, seed=2)}
    if flat:
        inputs = {k: x.transpose(0, 2, 1, 3).reshape(2, x.shape[2], -1) for k, x in inputs.items()}
        call = call.replace("Attention<", "Attention<q_num_heads=4, kv_num_heads=2, ") if "<" in call else call
        call = call.replace("Attention(", "Attention<q_num_heads=4, kv_num_heads=2>(")
    inputs["m"], inputs["keep"] = random(2, 1, 4, keys, seed=3), np.random.default_rng(1).random((4, keys)) > 0.4
    inputs["keep"][:, 0] = True
    kinds = {"f": "float", "b": "bool"}
    ports = ", ".join(f"{kinds[x.dtype.kind]}[{','.join(map(str, x.shape))}] {k}" for k, x in inputs.items())
    out = "2,4,24" if flat else "2,4,4,6"
    model = parse(f"g ({ports}) => (float[{out}] y) {{ y = {call} }}")
    after = check(model, lower_attention, inputs)
    assert after["fastinfer.Attention"] == 1 and after["Attention"] == 0


def test_causal_rows_and_keys_of_other_counts_stay() -> None:
    inputs = {"q": random(1, 2, 3, 4), "k": random(1, 2, 5, 4), "v": random(1, 2, 5, 4)}
    model = parse(
        "g (float[1,2,3,4] q, float[1,2,5,4] k, float[1,2,5,4] v) => (float[1,2,3,4] y) { y = Attention<is_causal=1>(q, k, v) }"
    )
    assert check(model, lower_attention, inputs) == {"Attention": 1}
