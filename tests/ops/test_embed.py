# SPDX-License-Identifier: Apache-2.0
"""com.microsoft EmbedLayerNormalization against float64 numpy."""

import re

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError

MS = {"domain": "com.microsoft"}


def operands(batch, length, hidden, segments=True, mask=True, position_rows=None):
    rng = np.random.default_rng(batch * 100 + length)
    table = lambda n: rng.standard_normal((n, hidden)).astype(np.float32)  # noqa: E731
    ids = lambda high, rows=batch: rng.integers(0, high, (rows, length)).astype(np.int32)  # noqa: E731
    return [ids(50), ids(2) if segments else None, table(50), table(40), table(2) if segments else None, table(1)[0], table(1)[0],
            ids(2) if mask else None, ids(40, position_rows) if position_rows else None]  # fmt: skip


def reference(x, epsilon):
    ids, segments, words, positions, segment_table, scale, bias, mask, position_ids = x
    where = np.arange(ids.shape[1])[None] if position_ids is None else position_ids
    s = words[ids].astype(np.float64) + positions[where]
    if segments is not None:
        s = s + segment_table[segments]
    centred = s - s.mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale + bias
    counts = np.zeros(len(ids), np.int32) if mask is None else (mask == 1).sum(1).astype(np.int32)
    return [y.astype(np.float32), counts, s.astype(np.float32)]


@pytest.mark.parametrize(
    "batch,length,hidden", [(1, 1, 1), (2, 7, 33), (3, 16, 128), (2, 40, 384), (0, 3, 8), (2, 0, 8)]
)
@pytest.mark.parametrize("form", [{}, {"segments": False}, {"mask": False}, {"position_rows": 1}, {"position_rows": 2}])
def test_embed_layer_norm(batch, length, hidden, form):
    if form.get("position_rows") == 2:
        form = {"position_rows": batch}
    x = operands(batch, length, hidden, **form)
    want = reference(x, 1e-5)
    check_node(
        "EmbedLayerNormalization", x, 3, expected=want, epsilon=1e-5, rtol=1e-4, atol=1e-4, constants=(2, 3, 5, 6), **MS
    )
    check_node("EmbedLayerNormalization", x, 1, expected=want[:1], epsilon=1e-5, rtol=1e-4, atol=1e-4, **MS)


def test_embed_layer_norm_same_bits():
    check_same_bits(
        "EmbedLayerNormalization", operands(3, 5, 70), batch_inputs=(0, 1, 7), constants=(2, 3, 4, 5, 6), **MS
    )


@pytest.mark.parametrize("which,value", [(0, 50), (0, -1), (1, 2), (8, 40), (8, -(2**31))])
def test_hostile_ids(which, value):
    x = operands(2, 3, 8, position_rows=2)
    x[which][1, 2] = value
    with pytest.raises(FastinferError, match=f"index {re.escape(str(value))} is out of range; needed: 0 to "):
        build(node_model("EmbedLayerNormalization", x, **MS)).run({f"x{i}": a for i, a in enumerate(x)})


def test_length_beyond_the_positions():
    x = operands(1, 41, 8)
    with pytest.raises(FastinferError, match="index 40 is out of range; needed: 0 to 39"):
        build(node_model("EmbedLayerNormalization", x, **MS)).run(
            {f"x{i}": a for i, a in enumerate(x) if a is not None}
        )
