# SPDX-License-Identifier: Apache-2.0
"""Nodes and a small encoder, dense and packed, through cuda.plan: our kernels are taken, and results are the CPU half's."""

import attention_oracle as oracle
import numpy as np
import onnx
import pytest
import torch
from cuda_nodes import POISON, array_of, run_node

import fastinfer as fi
from fastinfer import _core, frontend, passes
from fastinfer.cuda.device import open_device
from fastinfer.cuda.plan import make_plan
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.tuning import Tuner
from fastinfer.lower import lower
from fastinfer.passes.pack_sequences import pack_sequences
from fastinfer.program import Program

RNG = np.random.default_rng(5)


def randn(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


def bits(*arrays):
    return [torch.from_numpy(a) for a in arrays]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "f16", "int8"])
def test_all_attributes(precision):
    q, k, v, mask = randn(2, 5, 4, 8), randn(2, 2, 8, 9), randn(2, 9, 2, 16), randn(1, 4, 5, 9)
    (got,), steps = run_node(
        "Attention", [q, k, v, mask], domain="fastinfer", precision=precision, q_layout="BSNH", k_layout="BNHS",
        v_layout="BSNH", o_layout="BSNH", scale=0.5, softcap=3.0, causal=1, zero_empty=1,
    )  # fmt: skip
    assert any(s.startswith("triton_attention") for s in steps)
    tq, tk, tv, tm = bits(q, k, v, mask)
    want = oracle.attention(
        tq.transpose(1, 2),
        tk.transpose(2, 3),
        tv.transpose(1, 2),
        tm,
        scale=0.5,
        softcap=3.0,
        causal=True,
        zero_empty=True,
    ).transpose(1, 2)
    bound = {"fp32": 1e-5, "tf32": 1e-2, "f16": 1e-2}.get(precision, 6e-2)
    np.testing.assert_allclose(got, want.numpy(), rtol=bound, atol=bound)


def test_split_has_its_workspace():
    q, k, v = randn(2, 2, 1, 8), randn(2, 2, 1030, 8), randn(2, 2, 1030, 8)
    (got,), steps = run_node("Attention", [q, k, v], domain="fastinfer", scale=0.3)
    assert any(s.startswith("triton_attention_split") for s in steps)
    np.testing.assert_allclose(got, oracle.attention(*bits(q, k, v), scale=0.3).numpy(), rtol=1e-5, atol=1e-5)


def test_declined_with_a_reason():
    """Heads of 300 elements run by the operator's body."""
    q = randn(1, 1, 2, 300)
    (got,), steps = run_node("Attention", [q, q, q], domain="fastinfer", scale=0.1)
    assert not any(s.startswith("triton_attention") for s in steps)
    np.testing.assert_allclose(got, oracle.attention(*bits(q, q, q), scale=0.1).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form,shape", [("keys", (1, 1, 1, 9)), ("queries", (1, 2, 9, 1)), ("pairs", (1, 2, 1, 53))])
def test_packed_node(form, shape):
    """Lengths 7, 0, 2."""
    x, lengths, mask = [randn(1, 9, 2, 8) for _ in range(3)], [7, 0, 2], randn(*shape) > -0.5
    (got,), steps = run_node(
        "PackedAttention", [*x, np.array(lengths), mask], domain="fastinfer", mask_form=form, scale=0.4, zero_empty=1,
        **{f"{n}_layout": "BSNH" for n in "qkvo"},
    )  # fmt: skip
    assert any(s.startswith("packed_triton_attention") for s in steps)
    first = pairs = 0
    for n in lengths:
        part = [torch.from_numpy(t[:, first : first + n]).transpose(1, 2) for t in x]
        m = torch.from_numpy(mask)
        if form == "pairs":
            m = m[..., pairs : pairs + n * n].reshape(1, 2, n, n)
        else:
            m = m[..., first : first + n] if form == "keys" else m[:, :, first : first + n]
        if n:
            want = oracle.attention(*part, m, scale=0.4, zero_empty=True).transpose(1, 2)
            np.testing.assert_allclose(got[:, first : first + n], want.numpy(), rtol=1e-5, atol=1e-5)
        first, pairs = first + n, pairs + n * n


def test_packed_reduce_node():
    x = randn(2, 9, 3)
    (got,), steps = run_node("PackedReduce", [x, np.array([7, 2])], domain="fastinfer", axis=1, reduction="mean")
    assert any(s.startswith("triton_packed_mean") for s in steps)
    np.testing.assert_allclose(got, np.stack([x[:, :7].mean(1), x[:, 7:].mean(1)], 1), rtol=1e-5, atol=1e-6)


ENCODER = """<ir_version: 10, opset_import: ["" : 23]> g (float[n,t,16] x, float[n,t] mask) => (float[n,16] y) {
    to = Constant<value_ints = [1, 2]>() m = Unsqueeze(mask, to)
    h = Constant<value_ints = [0, 0, 2, 8]>() flat = Constant<value_ints = [0, 0, 16]>() one = Constant<value_ints = [1]>()
    scale = Constant<value_float = 0.35>()
    qm = MatMul(x, wq) q3 = Reshape(qm, h) q = Transpose<perm = [0, 2, 1, 3]>(q3)
    km = MatMul(x, wk) k3 = Reshape(km, h) k = Transpose<perm = [0, 2, 3, 1]>(k3)
    vm = MatMul(x, wv) v3 = Reshape(vm, h) v = Transpose<perm = [0, 2, 1, 3]>(v3)
    s0 = MatMul(q, k) s1 = Mul(s0, scale) s = Add(s1, m) p = Softmax<axis = -1>(s) o0 = MatMul(p, v)
    o1 = Transpose<perm = [0, 2, 1, 3]>(o0) o = Reshape(o1, flat)
    r = Add(o, x) a = LayerNormalization<axis = -1>(r, g1, b1)
    y = ReduceMean<keepdims = 0>(a, one) }"""


@pytest.fixture(scope="module")
def encoder():
    proto = onnx.parser.parse_model(ENCODER)
    for name, shape in {"wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "g1": (16,), "b1": (16,)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(randn(*shape) * 0.4, name))
    return proto


def run_plan(program, feeds, precision):
    """Outputs and step names; feeds by input name."""
    device = DeviceProgram(program, open_device("cuda"), precision_of(precision))
    given = [feeds[p["name"]] for p in program.graph.inputs]
    plan = make_plan(device, [(_core.dtype_code(a.dtype), a.shape) for a in given], Tuner(device.device))
    plan.kept[0].fill_(POISON)
    for buffer, array in zip(plan.inputs, given, strict=True):
        buffer.copy_(torch.from_numpy(array))
    plan.launch()
    return [array_of(t.cpu()) for t in plan.outputs], [s.kernel for s in plan.steps]


@pytest.mark.parametrize("precision,bound", [("fp32", 1e-5), ("bf16", 6e-2)])
def test_encoder(encoder, precision, bound):
    x, mask = randn(2, 7, 16), np.where(np.arange(7) < [[5], [7]], 0, np.finfo(np.float32).min)
    feeds = {"x": x, "mask": mask.astype(np.float32)}
    want = next(iter(fi.compile(encoder).run(feeds).values()))
    (got,), steps = run_plan(lower(passes.run_pipeline(frontend.load(encoder))), feeds, precision)
    assert any(s.startswith("triton_attention") for s in steps) and any(
        s.startswith("triton_layer_norm") for s in steps
    )
    np.testing.assert_allclose(got, want, rtol=bound, atol=bound)


def test_packed_encoder(encoder):
    """Lengths are data: one plan for a bucket of 16 tokens and 4 sequences, two of them empty."""
    model = passes.run_pipeline(frontend.load(encoder))
    packed = pack_sequences(model)
    assert not isinstance(packed, str), packed
    program = lower(model, packed=packed)
    lengths, single = np.array([5, 7, 0, 0]), fi.compile(encoder)
    x, mask = randn(1, 16, 16), np.zeros((1, 16), np.float32)
    sequence = np.repeat(np.arange(4), [5, 7, 4, 0])
    auxiliary = {"lengths": lengths, "first": np.array([0, 5, 12, 12]), "sequence": sequence}
    form = Program(program.packed["graph"], program.tensors, program.notes)
    names = {p["name"] for p in form.graph.inputs}
    feeds = {"x": x, "mask": mask} | {f"fi.packed.{k}": v for k, v in auxiliary.items()}
    (got,), steps = run_plan(form, {k: v for k, v in feeds.items() if k in names}, "fp32")
    assert any(s.startswith("packed_triton_attention") for s in steps) and any("packed_mean" in s for s in steps)
    for s, (first, n) in enumerate([(0, 5), (5, 7)]):
        alone = single.run({"x": x[:, first : first + n], "mask": np.ascontiguousarray(mask[:, :n])})
        np.testing.assert_allclose(got[s : s + 1], next(iter(alone.values())), rtol=1e-5, atol=1e-5)
    assert np.isfinite(got[:2]).all() and np.isnan(got[2:]).all()  # means of nothing, as on the CPU
