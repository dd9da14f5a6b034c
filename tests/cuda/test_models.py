# SPDX-License-Identifier: Apache-2.0
"""Whole models on the device, from file to outputs, in every precision; ragged batches; what explain() says of them."""

import numpy as np
import pytest
from nets import NETS
from onnx.reference import ReferenceEvaluator

import fastinfer as fi
from fastinfer import _core
from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.plan import make_plan
from fastinfer.cuda.tuning import Tuner

# float32 as on the CPU; halves round in every layer; int8 and fp8 also quantise the operands of their products, fp8 with three
# bits (and the interpreter rounds some of its numbers to the wrong side: 0.21 measured).
TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 3e-2, "f16": 1e-2, "int8": 0.1, "fp8": 0.3}


QUICK = {("encoder", p) for p in TOLERANCES if p != "fp32"} | {
    ("residual_cnn", "bf16"),
    ("recurrent", "fp32"),
    ("recurrent", "bf16"),
}
EVERY = [
    pytest.param(n, p, marks=() if (n, p) in QUICK else pytest.mark.slow)  # interpreted, a small CNN takes half a minute
    for n in NETS for p in TOLERANCES
]  # fmt: skip


@pytest.mark.parametrize("name, precision", EVERY)
def test_close_to_the_reference(name, precision):
    proto, make = NETS[name]()
    feeds = make(np.random.default_rng(5), 2)
    want = ReferenceEvaluator(proto).run(None, feeds)[0]
    (got,) = fi.compile(proto, device="cuda", precision=precision).run(feeds).values()
    assert got.shape == want.shape and got.dtype == want.dtype
    assert np.linalg.norm(got - want) <= TOLERANCES[precision] * np.linalg.norm(want)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRET, reason="products by BLAS")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_company_does_not_change_bits(name, precision):
    """Where every step is ours: what torch's products do is not promised. The interpreter multiplies with BLAS, whose bits
    depend on a row's place; families are tested with an ordered product instead."""
    proto, make = NETS[name]()
    feeds = make(np.random.default_rng(6), 5)
    model = fi.compile(proto, device="cuda", precision=precision)
    if foreign := [s["kernel"] for s in model.explain(feeds).steps if s["kernel"].startswith("torch.")]:
        pytest.skip(f"not all of it is ours: {', '.join(sorted(set(foreign)))}")
    (batch,) = model.run(feeds).values()
    for r in (0, 3):
        (alone,) = model.run({k: v[r : r + 1] for k, v in feeds.items()}).values()
        np.testing.assert_array_equal(alone, batch[r : r + 1])


def test_kernels_of_ours_run_what_they_should():
    """The networks' heavy operators do not fall through to torch."""
    heavy = {"Conv", "MatMul", "Attention", "LayerNormalization", "MaxPool", "Pointwise", "LSTM", "Softmax"}
    for name in NETS:
        proto, make = NETS[name]()
        feeds = make(np.random.default_rng(0), 2)
        program = fi.compile(proto, device="cuda", precision="bf16")._executor.program
        arrays = [feeds[port["name"]] for port in program.graph.inputs]
        signature = [(_core.dtype_code(a.dtype), a.shape) for a in arrays]
        steps = make_plan(program, signature, Tuner(program.device)).steps
        assert not {s.kernel for s in steps} & {f"torch.{op}" for op in heavy}, name


def test_ragged_batches_run_packed_in_buckets():
    proto, _ = NETS["encoder"]()
    cpu, model = fi.compile(proto), fi.compile(proto, device="cuda")
    assert model.packing == "" and "packed" in model.batches
    rng, spec = np.random.default_rng(1), model.inputs

    def feed(length):
        return {s.name: example(s, length, rng) for s in spec}

    for lengths in ([3, 9, 5], [4, 8, 5], [2, 2, 2, 11]):
        feeds = [feed(n) for n in lengths]
        for got, want in zip(model.run_many(feeds), cpu.run_many(feeds), strict=True):
            for y, expected in zip(got.values(), want.values(), strict=True):
                assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()


def example(spec, length, rng):
    shape = [1, length, *[d for d in spec.shape[2:]]]
    if "mask" in spec.name:
        return np.ones(shape, spec.dtype)
    return (
        rng.integers(0, 20, shape).astype(spec.dtype)
        if "int" in spec.dtype
        else rng.standard_normal(shape).astype("f4")
    )
