# SPDX-License-Identifier: Apache-2.0
"""PackedAttention and PackedReduce: each sequence as the plain operator has it alone, bit by bit."""

import numpy as np
import pytest
from support import ISAS, build, node_model

import fastinfer as fi
from fastinfer import _core

RNG = np.random.default_rng(11)
BATCHES = [[3, 1, 17, 4], [5], [2, 0, 130, 1, 1], [0], [1] * 9, [64, 65, 63, 200]]


@pytest.fixture(params=ISAS)
def isa(request):
    _core.force_isa(request.param)
    yield request.param
    _core.force_isa(_core.detected_isa())


def cut(lengths):
    ends = np.cumsum(lengths)
    return [slice(e - n, e) for n, e in zip(lengths, ends)]


def heads_first(x, layout):
    return {"BNSH": x, "BSNH": x.transpose(0, 2, 1, 3), "BNHS": x.transpose(0, 1, 3, 2)}[layout]


def run(op, arrays, threads, **attrs):
    model = build(node_model(op, arrays, domain="fastinfer", **attrs), threads=threads)
    return model.run({f"x{i}": a for i, a in enumerate(arrays) if a is not None})["y0"]


def mask_for(form, lengths, heads, boolean):
    total, pairs = sum(lengths), sum(n * n for n in lengths)
    shape = {"fixed": (1, heads, 1, 1), "keys": (1, 1, 1, total), "queries": (1, heads, total, 1),
             "pairs": (1, heads, 1, pairs)}[form]  # fmt: skip
    m = RNG.standard_normal(shape, dtype=np.float32)
    return m > -0.5 if boolean else m


def own_mask(mask, form, lengths, s):
    if form == "fixed":
        return mask
    if form == "pairs":
        start = sum(n * n for n in lengths[:s])
        n = lengths[s]
        return mask[..., start : start + n * n].reshape(1, -1, n, n)
    part = cut(lengths)[s]
    return mask[..., part] if form == "keys" else mask[:, :, part]


@pytest.mark.parametrize("lengths", BATCHES, ids=str)
@pytest.mark.parametrize("form", [None, "fixed", "keys", "queries", "pairs"])
@pytest.mark.parametrize("layouts", [("BSNH", "BSNH", "BSNH", "BSNH"), ("BNSH", "BNHS", "BNSH", "BNSH")])
def test_attention_is_that_of_each_sequence(isa, lengths, form, layouts):
    heads, kv, d, dv, total = 4, 2, 8, 5, sum(lengths)
    shapes = [(1, heads, total, d), (1, kv, total, d), (1, kv, total, dv)]
    q, k, v = (np.ascontiguousarray(heads_first(RNG.standard_normal(s, dtype=np.float32), name))
               for s, name in zip(shapes, layouts))  # fmt: skip
    mask = None if form is None else mask_for(form, lengths, heads, boolean=form == "keys")
    attrs = dict(zip(("q_layout", "k_layout", "v_layout", "o_layout"), layouts), scale=0.3, causal=int(form == "queries"),
                 zero_empty=1)  # fmt: skip
    packed = [q, k, v, np.array(lengths, np.int64), mask]
    one = run("PackedAttention", packed, 1, **attrs, **({} if form is None else {"mask_form": form}))
    two = run("PackedAttention", packed, 2, **attrs, **({} if form is None else {"mask_form": form}))
    np.testing.assert_array_equal(one, two)
    axis = [1 if name == "BSNH" else 3 if name == "BNHS" else 2 for name in layouts]
    for s, part in enumerate(cut(lengths)):
        if lengths[s] == 0:
            continue
        own = [np.ascontiguousarray(x[(slice(None),) * a + (part,)]) for x, a in zip((q, k, v), axis)]
        m = None if form is None else np.ascontiguousarray(own_mask(mask, form, lengths, s))
        want = run("Attention", [*own, m], 1, **attrs)
        np.testing.assert_array_equal(one[(slice(None),) * axis[3] + (part,)], want, err_msg=f"sequence {s}")


@pytest.mark.parametrize("lengths", BATCHES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "int32"])
@pytest.mark.parametrize("shape, axis", [((1, -1, 70), 1), ((1, -1), 1), ((3, -1, 2), 1), ((-1, 1), 0)])
def test_reduce_is_that_of_each_sequence(isa, lengths, name, dtype, shape, axis):
    if 0 in lengths and dtype != "float32":
        lengths = [n or 1 for n in lengths]
    x = (RNG.standard_normal([sum(lengths) if d < 0 else d for d in shape]) * 9).astype(dtype)
    given = [x, np.array(lengths, np.int64)]
    one = run("PackedReduce", given, 1, reduction=name, axis=axis)
    np.testing.assert_array_equal(one, run("PackedReduce", given, 2, reduction=name, axis=axis))
    op = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}[name]
    for s, part in enumerate(cut(lengths)):
        own = np.ascontiguousarray(x[(slice(None),) * axis + (part,)])
        plain = build(node_model(op, [own, np.array([axis])], constants=(1,)))
        want = plain.run({"x0": own})["y0"]
        np.testing.assert_array_equal(one[(slice(None),) * axis + (slice(s, s + 1),)], want, err_msg=f"sequence {s}")


@pytest.mark.parametrize("lengths", [[5, 6], [-1, 11], [11], [4, 5], [2**62, 2**62, 10], [1 << 40, 10]])
def test_wrong_lengths_are_an_error(lengths):
    n = np.array(lengths, np.int64)
    q = np.ones((1, 10, 2, 4), np.float32)
    bsnh = dict.fromkeys(("q_layout", "k_layout", "v_layout", "o_layout"), "BSNH")
    with pytest.raises(fi.FastinferError):
        run("PackedAttention", [q, q, q, n], 2, **bsnh)
    with pytest.raises(fi.FastinferError):
        run("PackedReduce", [q, n], 2, reduction="sum", axis=1)


def test_mask_of_other_size_is_an_error():
    q, n = np.ones((1, 10, 2, 4), np.float32), np.array([4, 6])
    bsnh = dict.fromkeys(("q_layout", "k_layout", "v_layout", "o_layout"), "BSNH")
    for form, shape in [("keys", (1, 1, 1, 9)), ("pairs", (1, 1, 1, 51)), ("fixed", (1, 1, 1, 10)), ("keys", (1, 3, 1, 10)),
                        ("queries", (1, 1, 1, 10)), ("other", (1, 1, 1, 1))]:  # fmt: skip
        with pytest.raises(fi.FastinferError):
            run("PackedAttention", [q, q, q, n, np.ones(shape, np.float32)], 1, mask_form=form, **bsnh)
    with pytest.raises(fi.FastinferError, match="lengths"):
        run("PackedAttention", [q, q, q, n.astype(np.int32)], 1, **bsnh)
    with pytest.raises(fi.FastinferError, match="unknown reduction"):
        run("PackedReduce", [q, n], 1, reduction="product", axis=1)
