# SPDX-License-Identifier: Apache-2.0
"""Small dense layers in one launch, through fi.compile: the kernel's arithmetic on the host (with a device: the kernel) against
float64; what is taken, what is not, and what explain() says of it."""

import numpy as np
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import fastinfer as fi
from fastinfer.cuda import chains, native
from fastinfer.cuda.device import open_device

pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")

FORMS = {
    "": lambda v: v, "Relu": torch.relu, "Gelu": torch.nn.functional.gelu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid,
    "Silu": torch.nn.functional.silu,
}  # fmt: skip


@pytest.fixture
def kernel(monkeypatch):
    def on_host(x, layers, y):
        exact = torch.full(y.shape, float("nan"))
        native.mlp_on_host(x.float(), [(w.float(), None if b is None else b.float(), a) for w, b, a in layers], exact)
        y.copy_(exact)

    if open_device("cuda").torch.type == "cpu":
        monkeypatch.setattr(native, "missing", lambda device: "")
        monkeypatch.setattr(native, "mlp", on_host)


class Net:
    """x → layers of these widths; every second weight is [out, in], every third layer has no bias."""

    def __init__(self, widths, activations, extra=(), outputs=(), head=(), x="x"):
        rng = np.random.default_rng(sum(widths))
        self.widths, self.activations = widths, activations
        self.w = [(rng.standard_normal((a, b)) / a**0.5).astype(np.float32) for a, b in zip(widths, widths[1:])]
        self.b = [rng.standard_normal(b).astype(np.float32) for b in widths[1:]]
        self.nodes, self.tensors, value = list(head), [], x
        for i, (w, b) in enumerate(zip(self.w, self.b)):
            self.tensors += [self._tensor(w.T if i % 2 else w, f"w{i}"), self._tensor(b, f"b{i}")]
            given = [value, f"w{i}"] + ([] if i % 3 == 2 else [f"b{i}"])
            self.nodes.append(h.make_node("Gemm", given, [f"h{i}"], transB=i % 2))
            value = self._activate(i, f"h{i}")
        self.nodes += [*extra, h.make_node("Identity", [value], ["y"])]
        self.outputs = [("y", widths[-1]), *outputs]

    @staticmethod
    def _tensor(array, name):
        return numpy_helper.from_array(np.ascontiguousarray(array), name)

    def _activate(self, i, value):
        name = self.activations[i % len(self.activations)]
        if not name:
            return value
        if name == "Silu":
            self.nodes += [h.make_node("Sigmoid", [value], [f"s{i}"]), h.make_node("Mul", [value, f"s{i}"], [f"a{i}"])]
        else:
            self.nodes.append(h.make_node(name, [value], [f"a{i}"]))
        return f"a{i}"

    def compiled(self, precision="fp32", shape=None):
        of = lambda name, shape: h.make_tensor_value_info(name, T.FLOAT, shape)  # noqa: E731
        outputs = [of(name, ["n", width]) for name, width in self.outputs]
        graph = h.make_graph(self.nodes, "g", [of("x", shape or ["n", self.widths[0]])], outputs, self.tensors)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
        return fi.compile(model.SerializeToString(), device="cuda", precision=precision)

    def expected(self, x):
        v = torch.from_numpy(x).double()
        for i, (w, b) in enumerate(zip(self.w, self.b)):
            v = v @ torch.from_numpy(w).double() + (0 if i % 3 == 2 else torch.from_numpy(b).double())
            v = FORMS[self.activations[i % len(self.activations)]](v)
        return v.numpy()


def rows(m, width):
    return np.random.default_rng(m).standard_normal((m, width)).astype(np.float32)


def error(got, expected):
    return np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected)


def kernels(model, feed):
    return [s["kernel"] for s in model.explain(feed).steps if not s["kernel"].startswith(("cast", "copy"))]


@pytest.mark.parametrize("precision,limit", [("fp32", 1e-6), ("f16", 3e-3), ("bf16", 2e-2), ("int8", 2e-2)])
def test_against_float64(kernel, precision, limit):
    net = Net([13, 64, 40, 7, 257, 33, 5], tuple(FORMS))
    model = net.compiled(precision)
    for m in (1, 3, 8, 30):
        x = rows(m, 13)
        assert error(model(x).astype(np.float32), net.expected(x)) < limit
        assert kernels(model, {"x": x}) == ["mlp 13-64-40-7-257-33-5"]


def test_a_row_has_the_same_bits_in_any_batch(kernel):
    model = Net([20, 32, 4], ("Relu",)).compiled()
    x = rows(40, 20)
    assert np.array_equal(model(x)[17:18], model(x[17:18]))


def test_explain_names_what_it_replaces(kernel):
    model = Net([8, 16, 4], ("Relu", "Tanh")).compiled()
    (step,) = model.explain({"x": rows(2, 8)}).steps
    assert step["kernel"] == "mlp 8-16-4" and step["shape"] == [2, 4] and step["flops"] == 2 * 2 * (8 * 16 + 16 * 4)
    assert step["refusals"] == [] and len(step["also"]) >= 2
    assert "mlp 8-16-4" in str(model.explain())


def test_what_others_read_is_kept(kernel):
    """h0's activation is an output too: the run begins behind it."""
    net = Net([8, 16, 12, 4], ("Relu",), [h.make_node("Identity", ["a0"], ["z"])], [("z", 16)])
    model, x = net.compiled(), rows(3, 8)
    got = model.run({"x": x})
    assert kernels(model, {"x": x})[-1] == "mlp 16-12-4" and len(kernels(model, {"x": x})) == 2
    assert error(got["y"], net.expected(x)) < 1e-6
    assert error(got["z"], np.maximum(x.astype(np.float64) @ net.w[0] + net.b[0], 0)) < 1e-6


def test_branches_and_other_nodes_between(kernel):
    """The run is computed in its first node's place; what stands between its nodes in the program goes its own way."""
    between = [h.make_node("Softmax", ["x"], ["p"], axis=1)]
    net = Net([8, 16, 4], ("Relu",), outputs=[("p", 8)])
    net.nodes[2:2] = between
    model, x = net.compiled(), rows(5, 8)
    got = model.run({"x": x})
    assert "mlp 8-16-4" in kernels(model, {"x": x}) and len(kernels(model, {"x": x})) == 2
    assert (
        error(got["y"], net.expected(x)) < 1e-6
        and error(got["p"], torch.from_numpy(x).double().softmax(1).numpy()) < 1e-6
    )


def test_behind_other_operators(kernel):
    head = [h.make_node("GlobalAveragePool", ["x"], ["p"]), h.make_node("Flatten", ["p"], ["f"])]
    net = Net([6, 16, 4], ("Relu",), head=head, x="f")
    model = net.compiled(shape=["n", 6, 3, 3])
    x = np.random.default_rng(0).standard_normal((2, 6, 3, 3)).astype(np.float32)
    assert kernels(model, {"x": x})[-1] == "mlp 6-16-4"
    assert error(model(x), net.expected(x.mean((2, 3)))) < 1e-6


def test_too_many_weights_are_cut_off(kernel, monkeypatch):
    monkeypatch.setattr(chains, "WEIGHTS", 300)
    net = Net([16, 32, 8, 8, 8, 4], ("Relu",))
    model, x = net.compiled(), rows(2, 16)
    assert kernels(model, {"x": x})[2:] == ["mlp 8-8-8-4"]
    assert error(model(x), net.expected(x)) < 1e-5
    refusals = [s["refusals"] for s in model.explain({"x": x}).steps]
    assert refusals[:2] == [[f"one launch for 5 layers: {n} weights, more than 300"] for n in (512, 320)]


def test_too_many_layers_are_two_runs(kernel):
    net = Net([8] * 19, ("Tanh",))
    model, x = net.compiled(), rows(2, 8)
    assert [k.count("-") for k in kernels(model, {"x": x})] == [16, 2]
    assert error(model(x), net.expected(x)) < 1e-5


def test_too_wide(kernel):
    model = Net([8, chains.WIDTH + 8, 4], ("Relu",)).compiled()
    assert any("features, more than" in r for s in model.explain({"x": rows(1, 8)}).steps for r in s["refusals"])


def test_several_rows_a_sample_stay_products(kernel):
    """Tokens are multiplied as a matrix, alone and packed alike."""
    tensors = [numpy_helper.from_array(np.ones((8, 8), np.float32), f"w{i}") for i in range(2)]
    nodes = [h.make_node("MatMul", ["x", "w0"], ["a"]), h.make_node("MatMul", ["a", "w1"], ["y"])]
    of = lambda name: h.make_tensor_value_info(name, T.FLOAT, ["n", 3, 8])  # noqa: E731
    model = h.make_model(
        h.make_graph(nodes, "g", [of("x")], [of("y")], tensors), opset_imports=[h.make_opsetid("", 21)], ir_version=10
    )
    found = kernels(fi.compile(model.SerializeToString(), device="cuda"), {"x": np.ones((2, 3, 8), np.float32)})
    assert len(found) == 2 and all(k.startswith("triton_gemm") for k in found)


def test_other_activations_end_a_run(kernel):
    net = Net([8, 16, 12, 4], ("Relu",))
    net.nodes[1] = h.make_node("Elu", ["h0"], ["a0"])
    model = net.compiled()
    assert kernels(model, {"x": rows(1, 8)})[-1] == "mlp 16-12-4"


def test_without_the_kernel_the_reason_is_said():
    if open_device("cuda").torch.type != "cpu":
        pytest.skip("the kernel is there")
    steps = Net([8, 16, 4], ("Relu",)).compiled().explain({"x": rows(1, 8)}).steps
    assert [s["kernel"].split()[0] for s in steps] == ["triton_gemm"] * 2
    assert steps[0]["refusals"][0] == "one launch for 2 layers: CUDA C++ kernels need a device"
