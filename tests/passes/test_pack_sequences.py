# SPDX-License-Identifier: Apache-2.0
"""Packed form: every sequence has the bits that it has alone; what mixes tokens is refused, and says why."""

import numpy as np
import onnx
import pytest

import fastinfer as fi

HEADER = '<ir_version: 10, opset_import: ["" : 23]>\n'
RNG = np.random.default_rng(3)
LENGTHS = (5, 1, 9, 3, 9, 17)


def compile_text(text, **constants):
    """A model from ONNX text: `x` float32 [n, t, 8] and `ids` int64 [n, t] are its inputs."""
    proto = onnx.parser.parse_model(HEADER + text)
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return fi.compile(proto, threads=2, strict=True)


def feeds_for(model, lengths, rows=1):
    make = {"x": lambda n: RNG.standard_normal((rows, n, 8), dtype=np.float32), "ids": lambda n: RNG.integers(0, 9, (rows, n)),
            "mask": lambda n: (np.arange(n) < max(1, n - 1)).astype(np.int64)[None].repeat(rows, 0),
            "scale": lambda n: RNG.standard_normal((rows, 8), dtype=np.float32)}  # fmt: skip
    return [{s.name: make[s.name](n) for s in model.inputs} for n in lengths]


def check_packs(model):
    assert model.packing == ""
    feeds = feeds_for(model, LENGTHS) + feeds_for(model, (4,), rows=3)
    arrays = [model._binding.named(f) for f in feeds]
    form = model._many.packed()
    together = form.run(arrays, [form.extent(a) for a in arrays])  # raises where run_many would fall back
    for feed, got in zip(feeds, together):
        want = list(model.run(feed).values())
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def weights(**shapes):
    return {k: RNG.standard_normal(s, dtype=np.float32) for k, s in shapes.items()}


TABLE = RNG.standard_normal((32, 8), dtype=np.float32)
PACKS = {
    "linear, norm, gelu": (
        """g (float[n,t,8] x) => (float[n,t,4] y) { a = MatMul(x, w) b = LayerNormalization<axis = -1>(a, s) y = Gelu(b) }""",
        weights(w=(8, 4), s=(4,)),
    ),
    "flattened rows": (
        """g (float[n,t,8] x) => (float[n,t,4] y) { s = Constant<value_ints = [-1, 8]>() f = Reshape(x, s)
           m = Gemm(f, w, b) h = Shape<end = 2>(x) four = Constant<value_ints = [4]>() to = Concat<axis = 0>(h, four)
           y = Reshape(m, to) }""",
        weights(w=(8, 4), b=(4,)),
    ),
    "first token": (
        """g (float[n,t,8] x) => (float[n,8] y) { zero = Constant<value_int = 0>() a = Gather<axis = 1>(x, zero)
           y = Tanh(a) }""",
        {},
    ),
    "first token by slice, last by gather": (
        """g (float[n,t,8] x) => (float[n,1,8] y, float[n,8] z) { zero = Constant<value_ints = [0]>()
           one = Constant<value_ints = [1]>() y = Slice(x, zero, one, one) last = Constant<value_int = -1>()
           z = Gather<axis = 1>(x, last) }""",
        {},
    ),
    "masked mean": (
        """g (float[n,t,8] x, int64[n,t] mask) => (float[n,8] y) { one = Constant<value_ints = [1]>()
           two = Constant<value_ints = [2]>() m = Cast<to = 1>(mask) m3 = Unsqueeze(m, two) to = Shape(x)
           wide = Expand(m3, to) k = Mul(x, wide) sum = ReduceSum<keepdims = 0>(k, one)
           count = ReduceSum<keepdims = 0>(wide, one) y = Div(sum, count) }""",
        {},
    ),
    "mean, max and what follows": (
        """g (float[n,t,8] x) => (float[n,t,8] y, float[n,1,8] z) { one = Constant<value_ints = [1]>()
           mean = ReduceMean<keepdims = 1>(x, one) z = ReduceMax<keepdims = 1>(x, one) d = Sub(x, mean) y = Mul(d, z) }""",
        {},
    ),
    "sum of integers": (
        """g (int64[n,t] ids) => (int64[n] y) { one = Constant<value_ints = [1]>()
           y = ReduceSum<keepdims = 0>(ids, one) }""",
        {},
    ),
    "places from a range": (
        """g (int64[n,t] ids) => (float[n,t,8] y) { zero = Constant<value_int = 0>() one = Constant<value_int = 1>()
           s = Shape(ids) t = Gather<axis = 0>(s, one) p = Range(zero, t, one) e = Gather<axis = 0>(table, p)
           v = Gather<axis = 0>(table, ids) y = Add(v, e) }""",
        {"table": TABLE},
    ),
    "places from a running sum": (
        """g (int64[n,t] ids, int64[n,t] mask) => (float[n,t,8] y) { one = Constant<value_int = 1>() c = CumSum(mask, one)
           p = Mul(c, mask) e = Gather<axis = 0>(table, p) v = Gather<axis = 0>(table, ids) y = Add(v, e) }""",
        {"table": TABLE},
    ),
    "one vector per sequence": (
        """g (float[n,t,8] x, float[n,8] scale) => (float[n,t,8] y) { one = Constant<value_ints = [1]>()
           s = Unsqueeze(scale, one) y = Mul(x, s) }""",
        {},
    ),
    "attention": (
        """g (float[n,t,8] x, int64[n,t] mask) => (float[n,t,8] y) {
           q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) h = Shape<end = 2>(x)
           split = Constant<value_ints = [2, 4]>() to = Concat<axis = 0>(h, split)
           qh = Reshape(q, to) kh = Reshape(k, to) vh = Reshape(v, to)
           qt = Transpose<perm = [0, 2, 1, 3]>(qh) kt = Transpose<perm = [0, 2, 3, 1]>(kh)
           vt = Transpose<perm = [0, 2, 1, 3]>(vh) half = Constant<value_float = 0.5>()
           axes = Constant<value_ints = [1, 2]>() m = Cast<to = 1>(mask) m4 = Unsqueeze(m, axes)
           one = Constant<value_float = 1.0>() low = Constant<value_float = -10000.0>() off = Sub(one, m4)
           bias = Mul(off, low) s = MatMul(qt, kt) scaled = Mul(s, half) masked = Add(scaled, bias)
           p = Softmax<axis = -1>(masked) o = MatMul(p, vt) ot = Transpose<perm = [0, 2, 1, 3]>(o) y = Reshape(ot, h8) }""",
        {**weights(wq=(8, 8), wk=(8, 8), wv=(8, 8)), "h8": np.array([0, 0, 8])},
    ),
}


@pytest.mark.parametrize("name", PACKS)
def test_packs(name):
    text, constants = PACKS[name]
    check_packs(compile_text(text, **constants))


REFUSED = {
    "softmax over the sequence": (
        "g (float[n,t,8] x) => (float[n,t,8] y) { y = Softmax<axis = 1>(x) }", {}, "runs along the sequence"),
    "convolution over the sequence": (
        """g (float[n,t,8] x) => (float[n,8,t] y) { c = Transpose<perm = [0, 2, 1]>(x)
           y = Conv<kernel_shape = [3], pads = [1, 1]>(c, w) }""", weights(w=(8, 8, 3)), "may mix tokens"),
    "LSTM": (
        """g (float[n,t,8] x) => (float[t,1,n,4] y) { s = Transpose<perm = [1, 0, 2]>(x)
           y = LSTM<hidden_size = 4>(s, w, r) }""", weights(w=(1, 16, 8), r=(1, 16, 4)), "LSTM"),
    "token by token product": (
        """g (float[n,t,8] x) => (float[n,t,t] y) { c = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, c) }""",
        {}, "depends on the inputs"),
    "second token": (
        """g (float[n,t,8] x) => (float[n,8] y) { i = Constant<value_int = 1>() y = Gather<axis = 1>(x, i) }""",
        {}, "takes token [1]"),
    "mean over the batch": (
        """g (float[n,t,8] x) => (float[1,t,8] y) { a = Constant<value_ints = [0]>() y = ReduceMean(x, a) }""",
        {}, "along the batch"),
    "mean over batch and sequence": (
        """g (float[n,t,8] x) => (float[1,1,8] y) { a = Constant<value_ints = [0, 1]>() y = ReduceMean(x, a) }""",
        {}, "reduces axes [0, 1]"),
    "scale of the whole tensor": (
        "g (float[n,t,8] x) => (uint8[n,t,8] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }",
        {}, "may mix tokens"),
    "the length as a number": (
        """g (float[n,t,8] x) => (float[n,t,8] y) { s = Shape<start = 1, end = 2>(x) f = Cast<to = 1>(s) y = Div(x, f) }""",
        {}, "computes with the length"),
    "running sum of floats": (
        "g (float[n,t,8] x) => (float[n,t,8] y) { a = Constant<value_int = 1>() y = CumSum(x, a) }",
        {}, "only integers"),
    "reversed sequence": (
        """g (float[n,t,8] x) => (float[n,t,8] y) { a = Constant<value_ints = [-1]>() b = Constant<value_ints = [-99]>()
           one = Constant<value_ints = [1]>() y = Slice(x, a, b, one, a) }""", {}, "only the first token"),
    "sequence into features": (
        """g (float[n,t,8] x) => (float[n,f] y) { s = Constant<value_ints = [0, -1]>() y = Reshape(x, s) }""",
        {}, "mixes the length"),
    "fixed length": ("g (float[n,6,8] x) => (float[n,6,8] y) { y = Relu(x) }", {}, "no input has a free second axis"),
    "two free axes": ("g (float[n,t,f] x) => (float[n,t,f] y) { y = Relu(x) }", {}, "input 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name):
    text, constants, reason = REFUSED[name]
    model = compile_text(text, **constants)
    assert reason in model.packing
    if name in ("fixed length", "two free axes"):
        return
    feeds = feeds_for(model, (4, 7, 4))
    for got, feed in zip(model.run_many(feeds), feeds):
        for k, want in model.run(feed).items():
            np.testing.assert_array_equal(got[k], want)


# --------------------------------------------------------------------------------------------- rows of one shape each


ROWS = {
    "convolutions and pooling": (
        """g (float[n,3,9,9] x) => (float[n,5] y) { a = Conv<kernel_shape = [3, 3], strides = [2, 2]>(x, w) r = Relu(a)
           p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v) }""", weights(w=(4, 3, 3, 3), v=(4, 5))),
    "LSTM, last step": (
        """g (float[n,6,8] x) => (float[n,4] y) { s = Transpose<perm = [1, 0, 2]>(x)
           a, h, c = LSTM<hidden_size = 4>(s, w, r) z = Constant<value_ints = [0]>() y = Squeeze(h, z) }""",
        weights(w=(1, 16, 8), r=(1, 16, 4))),
    "attention within the row": (
        """g (float[n,6,8] x) => (float[n,6,8] y) { t = Transpose<perm = [0, 2, 1]>(x) s = MatMul(x, t)
           p = Softmax<axis = -1>(s) y = MatMul(p, x) }""", {}),
    "softmax along what was a sequence": ("g (float[n,6,8] x) => (float[n,6,8] y) { y = Softmax<axis = 1>(x) }", {}),
}  # fmt: skip
MIXED = {
    "softmax over the batch": ("g (float[n,8] x) => (float[n,8] y) { y = Softmax<axis = 0>(x) }", {}, "along the batch"),
    "distance from the mean": (
        """g (float[n,8] x) => (float[n,8] y) { a = Constant<value_ints = [0]>() m = ReduceMean(x, a) y = Sub(x, m) }""",
        {}, "along the batch"),
    "scale of the whole tensor": (
        """g (float[n,8] x) => (float[n,8] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }""",
        {}, "may mix"),
    "similarities": (
        "g (float[n,8] x) => (float[n,n] y) { t = Transpose(x) y = MatMul(x, t) }", {}, "depends on the inputs"),
    "statistics of the batch": (
        """g (float[n,3,4,4] x) => (float[n,3,4,4] y) { y, m, v = BatchNormalization<training_mode = 1>(x, s, s, s, s) }""",
        {"s": np.ones(3, np.float32)}, "statistics"),
    "rows regrouped": (
        """g (float[n,8] x) => (float[n,8] y) { s = Constant<value_ints = [8, -1]>() a = Reshape(x, s)
           to = Constant<value_ints = [-1, 8]>() y = Reshape(a, to) }""", {}, "Reshape"),
    "fixed batch": ("g (float[4,8] x) => (float[4,8] y) { y = Relu(x) }", {}, "needed: a batch"),
    "batch behind": ("g (float[n,8] x) => (float[8,n] y) { y = Transpose(x) }", {}, "no batch in front"),
    "all of one row": (
        """g (float[n,8] x) => (float[n,8] y) { z = Constant<value_int = 0>() f = Gather<axis = 0>(x, z) y = Add(x, f) }""",
        {}, "along the batch"),
}  # fmt: skip


def row_feeds(model, rows):
    (spec,) = model.inputs
    shape = [d for d in spec.shape[1:]]
    return [{spec.name: RNG.standard_normal((spec.shape[0] if isinstance(spec.shape[0], int) else n, *shape),
                                            dtype=np.float32)} for n in rows]  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_share_a_batch(name):
    text, constants = ROWS[name]
    model = compile_text(text, **constants)
    assert model.batches.startswith("feeds of equal shapes as one batch"), model.batches
    assert "several feeds: feeds of equal shapes" in str(model.explain())
    feeds = row_feeds(model, (1, 1, 3, 1))
    sizes = []
    alone = model._many._alone
    model._many._alone = lambda arrays: sizes.append(len(arrays[0])) or alone(arrays)
    got = model.run_many(feeds)
    assert sizes == [6]
    for g, f in zip(got, feeds):
        for k, want in model.run(f).items():
            np.testing.assert_array_equal(g[k], want)


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_mix_run_one_by_one(name):
    text, constants, reason = MIXED[name]
    proto = onnx.parser.parse_model(HEADER + text)
    for key, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    model = fi.compile(proto)
    assert model.batches.startswith("one by one: ") and reason in model.batches
    feeds = row_feeds(model, (1, 2, 1))
    for g, f in zip(model.run_many(feeds), feeds):
        for k, want in model.run(f).items():
            np.testing.assert_array_equal(g[k], want)


def test_rows_by_reference_run_one_by_one():
    """numpy's products of more rows have other bits."""
    proto = onnx.parser.parse_model(HEADER + "g (double[n,3,6,2] x) => (double[n,3,6,2] y) { y = LRN<size = 3>(x) }")
    model = fi.compile(proto)
    feeds = [{"x": RNG.standard_normal((1, 3, 6, 2))} for _ in range(3)]
    assert "by reference" in model._rows_mix([feeds[0]["x"]])
    for g, f in zip(model.run_many(feeds), feeds):
        np.testing.assert_array_equal(g["y"], model.run(f)["y"])


def test_inputs_may_be_called_as_the_ones_that_packing_adds():
    model = compile_text(
        """g (float[n,t,8] lengths, float[n,t,8] first) => (float[n,8] y) { zero = Constant<value_int = 0>()
           a = Add(lengths, first) b = Gather<axis = 1>(a, zero) y = Tanh(b) }"""
    )
    feeds = [{k: RNG.standard_normal((1, n, 8), np.float32) for k in ("lengths", "first")} for n in LENGTHS]
    arrays, form = [model._binding.named(f) for f in feeds], model._many.packed()
    for feed, (got,) in zip(feeds, form.run(arrays, [form.extent(a) for a in arrays]), strict=True):
        np.testing.assert_array_equal(got, model.run(feed)["y"])
