# SPDX-License-Identifier: Apache-2.0
"""One table of calls, on the CPU's model and on the device's: the same results, types, errors and words. A model that has
refused a call goes on, as all calls of a source go to one model."""

import asyncio
import copy
import gc
import pickle
import weakref

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import fastinfer as fi
from fastinfer.errors import FastinferError, InputError, ModelError, UnsupportedError

RNG = np.random.default_rng(0)
X, A = RNG.standard_normal((3, 8)).astype("f4"), RNG.standard_normal((3, 4)).astype("f4")
BF16 = ml_dtypes.bfloat16


def model_of(nodes, inputs, outputs, constants=()):
    value = lambda name, code, shape: h.make_tensor_value_info(name, code, shape)  # noqa: E731
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants]
    graph = h.make_graph(nodes, "g", [value(*i) for i in inputs], [value(*o) for o in outputs], tensors)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10).SerializeToString()


def one(op, inputs, output, constants=()):
    return model_of([h.make_node(op, [i[0] for i in inputs], [output[0]])], inputs, [output], constants)


def added(code):
    return one("Add", [("a", code, ["n", 4]), ("b", code, ["n", 4])], ("y", code, ["n", 4]))


SOURCES = {
    "dense": model_of(
        [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Add", ["a", "b"], ["c"]), h.make_node("Relu", ["c"], ["y"]),
         h.make_node("Softmax", ["a"], ["z"])],
        [("x", T.FLOAT, ["n", 8])], [("y", T.FLOAT, ["n", 4]), ("z", T.FLOAT, ["n", 4])],
        [("w", RNG.standard_normal((8, 4)).astype("f4")), ("b", np.ones(4, "f4"))],
    ),
    "two": added(T.FLOAT), "half": added(T.FLOAT16), "bf": added(T.BFLOAT16), "f64": added(T.DOUBLE),
    "ids": model_of([h.make_node("Gather", ["t", "i"], ["y"])], [("i", T.INT64, ["n"])], [("y", T.FLOAT, ["n", 2])],
                    [("t", np.arange(6, dtype="f4").reshape(3, 2))]),
    "scalar": one("Mul", [("a", T.FLOAT, ["n", 4]), ("s", T.FLOAT, [])], ("y", T.FLOAT, ["n", 4])),
    "fixed": one("Relu", [("a", T.FLOAT, [2, 4])], ("y", T.FLOAT, [2, 4])),
    "defaulted": one("Mul", [("a", T.FLOAT, ["n", 4]), ("s", T.FLOAT, [4])], ("y", T.FLOAT, ["n", 4]),
                     [("s", np.arange(4, dtype="f4"))]),
    "words": one("Identity", [("w", T.STRING, ["n"])], ("y", T.STRING, ["n"])),
    "nz": one("NonZero", [("a", T.FLOAT, ["n", 4])], ("y", T.INT64, [2, "k"])),
    "resh": one("Reshape", [("a", T.FLOAT, ["n", 4]), ("s", T.INT64, [2])], ("y", T.FLOAT, ["p", "q"])),
    "wrong": one("Relu", [("a", T.FLOAT, ["n", 4])], ("y", T.DOUBLE, ["n", 4])),
}  # fmt: skip
CALLS = [  # source, what is called
    ("positional", "dense", lambda m: m(X)),
    ("named", "dense", lambda m: m(x=X)),
    ("run", "dense", lambda m: m.run({"x":X})),
    ("run outputs", "dense", lambda m: m.run({"x":X},["z"])),
    ("run outputs none", "dense", lambda m: m.run({"x":X},[])),
    ("run outputs wrong", "dense", lambda m: m.run({"x":X},["q"])),
    ("list", "dense", lambda m: m(X.tolist())),
    ("list ragged", "dense", lambda m: m([[1,2],[3]])),
    ("none", "dense", lambda m: m(None)),
    ("str", "dense", lambda m: m("abc")),
    ("wrong rank", "dense", lambda m: m(X[0])),
    ("wrong extent", "dense", lambda m: m(X[:,:7])),
    ("wrong dtype", "dense", lambda m: m(X.astype("f8"))),
    ("int dtype", "dense", lambda m: m(X.astype("i4"))),
    ("complex", "dense", lambda m: m(X.astype("c8"))),
    ("object", "dense", lambda m: m(X.astype(object))),
    ("missing", "two", lambda m: m(A)),
    ("missing run", "two", lambda m: m.run({"a":A})),
    ("unknown run", "two", lambda m: m.run({"a":A,"b":A,"q":A})),
    ("unknown kw", "two", lambda m: m(A,q=A)),
    ("twice", "two", lambda m: m(A,a=A)),
    ("too many", "two", lambda m: m(A,A,A)),
    ("run list", "two", lambda m: m.run([A,A])),
    ("mismatch", "two", lambda m: m(A,A[:2])),
    ("mismatch17", "two", lambda m: m(np.zeros((17,4),"f4"),np.zeros((18,4),"f4"))),
    ("noncontig", "two", lambda m: m(A.T.copy().T,A[::-1])),
    ("strided", "two", lambda m: m(np.zeros((6,8),"f4")[::2,::2],A)),
    ("readonly", "two", lambda m: m(np.broadcast_to(np.float32(3),(3,4)),A)),
    ("bigendian", "two", lambda m: m(A.astype(">f4"),A)),
    ("unaligned", "two", lambda m: m(np.frombuffer(b"\0"+A.tobytes(),"u1")[1:].view("f4").reshape(3,4),A)),
    ("empty", "two", lambda m: m(A[:0],A[:0])),
    ("empty dense", "dense", lambda m: m(X[:0])),
    ("torch", "two", lambda m: m(torch.from_numpy(A),torch.from_numpy(A))),
    ("torch mixed", "two", lambda m: m(torch.from_numpy(A),A)),
    ("torch grad", "two", lambda m: m(torch.from_numpy(A).requires_grad_(),A)),
    ("torch bf16 to f32", "two", lambda m: m(torch.from_numpy(A).bfloat16(),A)),
    ("torch half", "half", lambda m: m(torch.from_numpy(A).half(),torch.from_numpy(A).half())),
    ("torch bf16", "bf", lambda m: m(torch.from_numpy(A).bfloat16(),torch.from_numpy(A).bfloat16())),
    ("torch noncontig", "two", lambda m: m(torch.from_numpy(A.T.copy()).T,A)),
    ("np half", "half", lambda m: m(A.astype("f2"),A.astype("f2"))),
    ("np bf16", "bf", lambda m: m(A.astype(BF16),A.astype(BF16))),
    ("np bf16 noncontig", "bf", lambda m: m(A.astype(BF16)[::-1],A.astype(BF16)[:, ::-1])),
    ("f64", "f64", lambda m: m(A.astype("f8"),A.astype("f8"))),
    ("f32 for f64", "f64", lambda m: m(A,A)),
    ("f32 for half", "half", lambda m: m(A,A)),
    ("scalar py", "scalar", lambda m: m(A,2.5)),
    ("scalar np", "scalar", lambda m: m(A,np.float32(2.5))),
    ("scalar 0d", "scalar", lambda m: m(A,np.array(2.5,"f4"))),
    ("scalar 1d", "scalar", lambda m: m(A,np.array([2.5],"f4"))),
    ("scalar int", "scalar", lambda m: m(A,3)),
    ("fixed ok", "fixed", lambda m: m(A[:2])),
    ("fixed wrong", "fixed", lambda m: m(A)),
    ("defaults left", "defaulted", lambda m: m(A)),
    ("defaults given", "defaulted", lambda m: m.run({"a":A,"s":np.ones(4,"f4")})),
    ("defaults given call", "defaulted", lambda m: m(A,s=np.ones(4,"f4"))),
    ("defaults wrong", "defaulted", lambda m: m.run({"a":A,"s":np.ones(5,"f4")})),
    ("words", "words", lambda m: m(np.array(["a","bc"],object))),
    ("words wrong", "words", lambda m: m(np.array([1,2]))),
    ("nonzero", "nz", lambda m: m(A)),
    ("nonzero wrong", "nz", lambda m: m(A[:,:3])),
    ("nonzero wrong dtype", "nz", lambda m: m(A.astype("f8"))),
    ("nonzero empty", "nz", lambda m: m(A[:0])),
    ("reshape", "resh", lambda m: m(A,np.array([2,6]))),
    ("reshape bad", "resh", lambda m: m(A,np.array([5,5]))),
    ("reshape wrong dtype", "resh", lambda m: m(A,np.array([2.,6.]))),
    ("index out", "ids", lambda m: m(np.array([5]))),
    ("index neg", "ids", lambda m: m(np.array([-1]))),
    ("index neg out", "ids", lambda m: m(np.array([-4]))),
    ("index i32", "ids", lambda m: m(np.array([1],"i4"))),
    ("nan inf", "dense", lambda m: m(np.array([[np.nan]*8,[np.inf]*8,[3e38]*8],"f4"))),
    ("denormal", "two", lambda m: m(np.full((1,4),1e-42,"f4"),np.full((1,4),1e-42,"f4"))),
    ("many", "dense", lambda m: m.run_many([{"x":X},{"x":X[:1]},{"x":X[:2]}])),
    ("each bad", "dense", lambda m: m.run_each([{"x":X},{"x":X[:,:3]},{"q":X}])),
    ("many bad", "dense", lambda m: m.run_many([{"x":X},{"x":X[:,:3]}])),
    ("many none", "dense", lambda m: m.run_many([])),
    ("group", "dense", lambda m: m.batch_group({"x":X})),
    ("arun", "dense", lambda m: asyncio.run(m.arun({"x":X}))),
    ("prepare", "dense", lambda m: m.prepare_many()),
    ("packing", "dense", lambda m: m.packing),
    ("batches", "dense", lambda m: m.batches),
    ("metadata", "dense", lambda m: m.metadata),
    ("inputs", "dense", lambda m: (str(m.inputs),str(m.outputs),str(m.overridable))),
    ("explain wrong", "dense", lambda m: m.explain({"x":X[:,:2]})),
    ("explain missing", "dense", lambda m: m.explain({})),
    ("explain none", "dense", lambda m: type(m.explain())),
    ("explain nz", "nz", lambda m: m.explain({"a":A}).plan["finished"]),
    ("profile wrong", "dense", lambda m: m.profile({"x":X[:,:2]})),
    ("profile", "dense", lambda m: type(m.profile({"x":X},2))),
    ("profile nz", "nz", lambda m: type(m.profile({"a":A},2))),
    ("tune wrong", "dense", lambda m: m.tune(X[:,:2])),
    ("tune missing", "dense", lambda m: m.tune()),
    ("trim", "dense", lambda m: (m.trim(),m.memory().plans)),
    ("out=", "dense", lambda m: m(X,out=np.zeros((3,4),"f4"))),
    ("zero rows many", "dense", lambda m: m.run_many([{"x":X[:0]},{"x":X}])),
    ("declared type", "wrong", lambda m: m(A)),
    ("threads of a call", "dense", lambda m: m.device.split(":")[0] in ("cpu", "cuda")),
]  # fmt: skip


@pytest.fixture(scope="module")
def models():
    return {name: (fi.compile(source), fi.compile(source, device="cuda")) for name, source in SOURCES.items()}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_calls_end_as_on_the_cpu(models, source):
    for name, _, call in (c for c in CALLS if c[1] == source):
        cpu, cuda = (outcome(call, model) for model in models[source])
        near = 1e-2 if source == "bf" else 1e-5  # the interpreter rounds halves its own way
        assert same(cpu, cuda, near), f"{name}: {cpu} on the CPU, {cuda} on the device"


def outcome(call, model):
    try:
        return plain(call(model))
    except Exception as error:
        return plain(error)


def plain(v):
    """What can be compared: a type, a shape, how it lies in memory, elements in float64."""
    if isinstance(v, torch.Tensor):
        return ["torch", str(v.dtype), str(v.device), v.double().numpy()]
    if isinstance(v, list | tuple):
        return [type(v).__name__, *map(plain, v)]
    if isinstance(v, dict):
        return {k: plain(x) for k, x in v.items()}
    if isinstance(v, np.ndarray):
        whole = v.tolist() if v.dtype.kind in "OU" else v.astype("f8")
        return ["numpy", str(v.dtype), v.shape, v.flags.c_contiguous, v.flags.writeable, whole]
    return ["raised", type(v).__name__, str(v)] if isinstance(v, Exception) else v


def same(a, b, near=1e-5):
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y, near) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k], near) for k in a)
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and np.allclose(a, b, rtol=near, atol=1e-6, equal_nan=True)
    return a == b


@pytest.mark.parametrize("options", [{"strict": True}, {"tune": True}, {"overridable": ["b"]}])
@pytest.mark.parametrize("source", ["dense", "words"])
def test_options_of_compile(source, options, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path))
    seen = [
        outcome(lambda d: type(fi.compile(SOURCES[source], device=d, **options)).__mro__[-2], d)
        for d in ("cpu", "cuda")
    ]
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "deepcopy", "pickle"]
)
def test_copies_run_on_the_same_device(again):
    model = fi.compile(SOURCES["dense"], device="cuda", precision="bf16")
    other = again(model)
    assert other is not model and (other.device, other.place) == (model.device, model.place)
    for a, b in zip(model(X), other(X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_goes_when_nobody_holds_it():
    gc.collect()
    gc.disable()
    try:
        model = fi.compile(SOURCES["dense"], device="cuda")
        model(X), model.explain(), model.profile({"x": X}, 1), model.run_many([{"x": X}, {"x": X[:1]}])
        gone = [weakref.ref(model), weakref.ref(model._executor), weakref.ref(model._executor.program)]
        del model
        assert [r() for r in gone] == [None] * 3
    finally:
        gc.enable()


def test_a_forked_process_is_told_why_it_cannot(monkeypatch):
    model = fi.compile(SOURCES["dense"], device="cuda")
    model(X)
    with monkeypatch.context() as there:
        there.setattr(type(model._device), "graphs", property(lambda d: True))
        there.setattr("os.getpid", lambda: 1)
        with pytest.raises(FastinferError, match="does not survive a fork"):
            model(X)
    assert len(model(X)) == 2


def test_indices_that_come_in_another_type_or_shape_are_looked_at():
    nodes = [h.make_node("Cast", ["i"], ["j"], to=T.INT64), h.make_node("Unsqueeze", ["j", "axes"], ["k"]),
             h.make_node("Gather", ["t", "k"], ["y"], axis=1)]  # fmt: skip
    source = model_of(nodes, [("i", T.INT32, ["n"])], [("y", T.FLOAT, [2, "n", 1])],
                      [("t", np.arange(6, dtype="f4").reshape(2, 3)), ("axes", np.array([1]))])  # fmt: skip
    cpu, cuda = fi.compile(source), fi.compile(source, device="cuda")
    good, bad = np.array([2, -3, 0], "i4"), np.array([0, 3], "i4")
    np.testing.assert_array_equal(cpu(good), cuda(good))
    for model in (cpu, cuda):
        with pytest.raises(InputError, match=r"\(Gather\): index 3 is out of range; needed: -3 to 2"):
            model(bad)


def test_read_only_memory_is_taken_without_a_warning(recwarn):
    model = fi.compile(SOURCES["two"], device="cuda")
    given = np.frombuffer(A.tobytes(), "f4").reshape(3, 4)
    np.testing.assert_array_equal(model(given, given), A + A)
    assert not [w for w in recwarn if "writ" in str(w.message)]


class Two(torch.nn.Module):
    def forward(self, pair, scale, flag=True):
        a, b = pair["a"], pair["b"]
        return {"sum": (a + b) * scale, "rest": [a - b, None] if flag else a}


def test_torch_modules_are_called_as_they_are():
    pair = {"a": torch.from_numpy(A), "b": torch.from_numpy(A) * 2}
    example = ({"a": pair["a"], "b": pair["b"]}, torch.tensor(2.0))
    cpu, cuda = (fi.compile(Two(), example, device=d) for d in ("cpu", "cuda"))
    scale = torch.tensor(3.0)
    calls = [
        lambda m: m(pair, scale), lambda m: m(pair, scale=scale), lambda m: m(pair, scale, True), lambda m: m(pair),
        lambda m: m(pair, scale, flag=False), lambda m: m({"a": pair["a"]}, scale), lambda m: m([pair["a"], pair["b"]], scale),
        lambda m: m({k: v.numpy() for k, v in pair.items()}, scale.numpy()),
    ]  # fmt: skip
    for i, call in enumerate(calls):
        a, b = outcome(call, cpu), outcome(call, cuda)
        assert same(a, b), (i, a, b)


def test_errors_are_of_the_kinds_that_the_cpus_are():
    model = fi.compile(SOURCES["dense"], device="cuda")
    for kind, call in ((InputError, lambda: model(X[:, 1:])), (UnsupportedError, lambda: fi.load("x", device="cuda", threads=1)),
                       (ModelError, lambda: fi.load("/nowhere", device="cuda")), (ModelError, lambda: fi.compile(b"x", device="cuda"))):  # fmt: skip
        with pytest.raises(kind):
            call()
