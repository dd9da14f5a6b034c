# SPDX-License-Identifier: Apache-2.0
"""Einsum against numpy."""

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError

EQUATIONS = [
    ("ij,jk->ik", [(3, 4), (4, 5)]), ("ij,jk", [(3, 4), (4, 5)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("bhid,bhjd->bhij", [(2, 3, 7, 5), (2, 3, 9, 5)]), ("bqhd,bkhd->bhqk", [(2, 7, 3, 16), (2, 9, 3, 16)]),
    ("bhqk,bkhd->bqhd", [(2, 3, 7, 9), (2, 9, 3, 16)]), ("ij->ji", [(3, 4)]), ("ji", [(3, 4)]), ("ij->", [(3, 4)]),
    ("ij->i", [(3, 4)]), ("ii->i", [(4, 4)]), ("ii", [(4, 4)]), ("ii->", [(4, 4)]), ("iij->ji", [(3, 3, 2)]),
    ("i,j->ij", [(3,), (4,)]), ("i,i->", [(5,), (5,)]), ("i,i->i", [(5,), (5,)]), ("ij,k->i", [(3, 4), (5,)]),
    ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]), ("...ij,...jk->...ik", [(7, 1, 3, 4), (2, 4, 5)]), ("...ii->...i", [(2, 3, 3)]),
    ("...", [(2, 3)]), ("i...->...", [(2, 3, 4)]), ("i...,j->...", [(2, 3), (4,)]), ("a...b,bc->ac...", [(2, 3, 4), (4, 5)]),
    ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]), ("ab,cb,dc,a->d", [(2, 3), (4, 3), (5, 4), (2,)]),
    ("nctkv,kvw->nctw", [(2, 3, 4, 2, 5), (2, 5, 5)]), ("bchq,bkhc->bkhq", [(2, 3, 2, 4), (2, 5, 2, 3)]),
    (" i j , j -> i ", [(3, 4), (4,)]), ("ij,jk->ik", [(3, 0), (0, 5)]), ("ij,jk->ik", [(0, 4), (4, 5)]),
    ("ij,jk->ik", [(1, 1), (1, 1)]), (",ij->ij", [(), (3, 4)]), ("->", [()]), ("iA,Aj->ij", [(2, 3), (3, 4)]),
    ("bhwc,hkc->bhwk", [(2, 4, 5, 8), (4, 6, 8)]), ("bhwc,wkc->bhwk", [(2, 4, 5, 8), (5, 6, 8)]),
]  # fmt: skip


@pytest.mark.parametrize("equation,shapes", EQUATIONS)
def test_einsum(equation, shapes):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    want = np.einsum(equation.replace(" ", ""), *[a.astype(np.float64) for a in arrays]).astype(np.float32)
    check_node("Einsum", arrays, expected=[want], equation=equation, rtol=1e-5, atol=1e-5)


def test_einsum_other_types_run_through_the_fallback():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    check_node("Einsum", [a, b], expected=[a @ b], equation="ij,jk->ik", strict=False)


def test_einsum_batch_gives_the_same_bits():
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((5, s, 3, 16)).astype(np.float32) for s in (7, 9))
    check_same_bits("Einsum", [q, k], batch_inputs=(0, 1), equation="bqhd,bkhd->bhqk")


@pytest.mark.parametrize("equation,shapes", [
    ("ij,jk->ik", [(3, 4), (5, 6)]), ("ij->i", [(3,)]), ("ij->ik", [(3, 4)]), ("ij->ii", [(3, 4)]), ("i1->i", [(3, 4)]),
    ("ij,jk->ik", [(3, 4)]), ("ii->i", [(3, 4)]), ("......", [(3,)]), ("i->...j", [(3,)]), ("i.->i", [(3, 4)]),
    ("...i,...i->i", [(2, 3), (4, 3)]),
])  # fmt: skip
def test_einsum_bad(equation, shapes):
    feeds = {f"x{i}": np.zeros(s, np.float32) for i, s in enumerate(shapes)}
    with pytest.raises(FastinferError, match="under_test.*equation"):
        build(node_model("Einsum", list(feeds.values()), equation=equation)).run(feeds)
