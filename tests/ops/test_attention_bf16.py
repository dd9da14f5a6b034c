# SPDX-License-Identifier: Apache-2.0
"""fastinfer::Attention with precision="bf16" against float64 on rounded operands, on every instruction set and 1 and 2 threads."""

import ml_dtypes
import numpy as np
import pytest
from support import check_node, check_same_bits, node_model, run_everywhere
from test_attention import attend, normal, operands

import fastinfer as fi
from kernels.attention.samples import EDGES

ORDER = {"BNSH": (0, 1, 2, 3), "BSNH": (0, 2, 1, 3), "BNHS": (0, 1, 3, 2)}


def bf16(x):
    return x.astype(ml_dtypes.bfloat16)


def check(q, k, v, mask=None, *, layouts=("BSNH",) * 4, stored=(0, 0, 0, 0), **form):
    """stored: which of Q, K, V, O are bfloat16 in memory. exp(...) is rounded too: 2^-9 of the largest value."""
    want = attend(*(bf16(x).astype(np.float32) for x in (q, k, v)), mask, **form)[0].transpose(ORDER[layouts[3]])
    given = [np.ascontiguousarray(x.transpose(ORDER[at])) for x, at in zip((q, k, v), layouts, strict=False)]
    given = [bf16(x) if half else x for x, half in zip(given, stored, strict=False)]
    names = dict(zip(("q_layout", "k_layout", "v_layout", "o_layout"), layouts, strict=True))
    attrs = {n: int(a) if isinstance(a, bool) else a for n, a in form.items()}
    check_node("Attention", given if mask is None else [*given, mask], domain="fastinfer", precision="bf16",
               expected=[bf16(want) if stored[3] else want.astype(np.float32)], rtol=1e-2,
               atol=6e-3 * max(1.0, np.abs(v).max(initial=0)),
               **names, **attrs, **({"output_dtype": "bf16"} if stored[3] else {}))  # fmt: skip


@pytest.mark.parametrize("case", EDGES, ids=str)
def test_extents(case):
    *extents, causal = case
    for stored in [(0, 0, 0, 0), (1, 1, 1, 1)]:
        check(*operands(*extents), causal=causal, scale=0.3, stored=stored)


@pytest.mark.parametrize("stored", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 1, 0)], ids=str)
@pytest.mark.parametrize("layouts", [("BNSH", "BNHS", "BNSH", "BSNH"), ("BSNH", "BSNH", "BNSH", "BNSH")], ids="-".join)
def test_types_and_layouts(stored, layouts):
    check(*operands(2, 4, 2, 37, 130, 33), scale=0.2, stored=stored, layouts=layouts)
    check(*operands(1, 2, 2, 3, 9, 16, 21), scale=0.2, stored=stored, layouts=layouts)


@pytest.mark.parametrize("shape", [(2, 3, 49, 49), (1, 1, 49, 49), (2, 1, 1, 49), (1, 3, 49, 1)], ids=str)
def test_masks(shape):
    for stored in [(0, 0, 0, 0), (1, 1, 1, 1)]:
        check(*operands(2, 3, 3, 49, 49, 32), normal(*shape), scale=0.2, stored=stored)
        kept = np.random.default_rng(3).random(shape) < 0.7
        kept[..., :1] = True
        check(*operands(2, 3, 3, 49, 49, 32), kept, scale=0.2, stored=stored)


def test_closed_rows_and_softcap():
    mask = np.full((1, 1, 20, 7), -np.inf, np.float32)
    mask[:, :, 3:] = 0
    check(*operands(1, 2, 2, 20, 7, 8), mask, scale=0.5)
    check(*operands(1, 2, 2, 20, 150, 8), scale=0.5, softcap=2.0, stored=(1, 1, 1, 1))


def test_nan_stays_in_its_row():
    q, k, v = operands(1, 1, 1, 20, 20, 8)
    q[0, 0, 3, 2] = np.nan
    model = node_model("Attention", [q, k, v], domain="fastinfer", precision="bf16")
    for label, (y,) in run_everywhere(model, {"x0": q, "x1": k, "x2": v}):
        assert np.isnan(y[0, 0, 3]).all() and np.isfinite(np.delete(y[0, 0], 3, 0)).all(), label


def test_same_bits():
    rng = np.random.default_rng(5)
    for n in (1, 49, 130):
        x = [rng.standard_normal((4, n, 3, 32), dtype=np.float32) for _ in range(3)]
        check_same_bits("Attention", x, batch_inputs=(0, 1, 2), domain="fastinfer", precision="bf16", scale=0.2,
                        q_layout="BSNH", k_layout="BSNH", v_layout="BSNH", o_layout="BSNH")  # fmt: skip


def test_other_types_need_the_permission():
    q = bf16(normal(1, 2, 5, 8))
    with pytest.raises(fi.FastinferError):
        fi.compile(node_model("Attention", [q, q, q], domain="fastinfer"), strict=True)
