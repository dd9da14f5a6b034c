# SPDX-License-Identifier: Apache-2.0
"""torch modules through the front door: shapes stay dynamic, structures come back, layers keep their operators."""

import collections
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import fastinfer as fi  # noqa: E402
from fastinfer.frontend import from_torch  # noqa: E402

BATCH = torch.export.Dim("batch", min=1, max=1024)


def compile_and_compare(module, example, dynamic_shapes, others, rtol=1e-5):
    model = fi.compile(module, example, dynamic_shapes=dynamic_shapes)
    module.eval()
    for inputs in (example, *others):
        call = (lambda f, i=inputs: f(**i)) if isinstance(inputs, dict) else (lambda f, i=inputs: f(*i))
        with torch.no_grad():
            want = call(module)
        got = call(model)
        pairs = zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(want), strict=True)
        for g, w in pairs:
            torch.testing.assert_close(g, w, rtol=rtol, atol=1e-5)
    return model


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Dropout(), torch.nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.body(x)


def test_static():
    model = compile_and_compare(Mlp(), (torch.randn(2, 4),), None, [])
    assert model.inputs[0].shape == (2, 4)


def test_dynamic_batch_keeps_its_name():
    model = compile_and_compare(Mlp(), (torch.randn(2, 4),), ({0: BATCH},), [(torch.randn(n, 4),) for n in (1, 5)])
    assert model.inputs[0].shape == ("batch", 4)


def test_batch_of_one_is_widened():
    compile_and_compare(Mlp(), (torch.randn(1, 4),), ({0: BATCH},), [(torch.randn(n, 4),) for n in (3, 7)])
    compile_and_compare(Mlp(), {"x": torch.randn(1, 4)}, {"x": {0: BATCH}}, [{"x": torch.randn(3, 4)}])
    compile_and_compare(Mlp(), (torch.randn(1, 4),), {"x": (BATCH, None)}, [(torch.randn(3, 4),)])


def test_training_mode_is_put_back():
    module = Mlp()
    module.body[2].eval()
    from_torch(module, (torch.randn(2, 4),))
    assert module.training and module.body[0].training and not module.body[2].training


def test_exported_program():
    module = Mlp().eval()
    x = torch.randn(2, 4)
    model = fi.compile(torch.export.export(module, (x,), dynamic_shapes=({0: BATCH},)))
    y = torch.randn(3, 4)
    torch.testing.assert_close(model(y), module(y), rtol=1e-5, atol=1e-6)


Pair = collections.namedtuple("Pair", ["first", "second"])


class Structured(torch.nn.Module):
    def forward(self, x, scale=None, *, shift=None):
        y = x if scale is None else x * scale
        y = y if shift is None else y + shift["by"]
        return {"pair": Pair(y.relu(), [y, None]), "number": 3, "same": y}


def test_structure_comes_back():
    model = fi.compile(Structured(), (torch.randn(2, 3), torch.randn(3)))
    x, scale = torch.randn(2, 3), torch.randn(3)
    out = model(x, scale)
    assert set(out) == {"pair", "number", "same"} and out["number"] == 3
    assert isinstance(out["pair"], Pair) and out["pair"].second[1] is None
    torch.testing.assert_close(out["pair"].first, (x * scale).relu())


def test_keyword_inputs():
    example = {"x": torch.randn(2, 3), "shift": {"by": torch.randn(3)}}
    imported = from_torch(Structured(), example)
    assert len(imported.input_names) == 2
    assert len(imported.model.graph.outputs) == 3


class Recurrent(torch.nn.Module):
    def __init__(self, kind, **more):
        super().__init__()
        self.layer = kind(5, 6, **more)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize(
    "more",
    [
        {"batch_first": True},
        {"num_layers": 2, "bidirectional": True},
        {"bias": False, "batch_first": True, "num_layers": 2},
    ],
)
def test_recurrent_layers_stay_operators(kind, more):
    first = more.get("batch_first", False)
    axes = {0: BATCH, 1: torch.export.Dim("length")} if first else {1: BATCH, 0: torch.export.Dim("length")}
    others = [(torch.randn(*((b, n, 5) if first else (n, b, 5))),) for b, n in ((1, 9), (3, 2))]
    compile_and_compare(Recurrent(kind, **more), (torch.randn(2, 4, 5),), (axes,), others, rtol=1e-4)
    graph = from_torch(Recurrent(kind, **more), (torch.randn(2, 4, 5),), (axes,)).model.graph
    assert sum(n.op_type == kind.__name__ for n in graph) == more.get("num_layers", 1)


class Shaped(torch.nn.Module):
    """Unrolls over its length, which torch cannot leave free."""

    def forward(self, x):
        state = torch.zeros_like(x[:, 0])
        for i in range(x.shape[1]):
            state = torch.tanh(state + x[:, i])
        return state


def test_static_fallback_is_said():
    shapes = ({0: BATCH, 1: torch.export.Dim("length")},)
    with pytest.warns(UserWarning, match="Shaped was exported for the example's shapes only"):
        imported = from_torch(Shaped(), (torch.randn(2, 4, 3),), shapes)
    assert list(imported.model.graph.inputs[0].shape) == [2, 4, 3]


def test_no_warning_otherwise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torch(Mlp(), (torch.randn(2, 4),), ({0: BATCH},))


def test_bad_calls():
    with pytest.raises(fi.InputError, match="example_inputs"):
        fi.compile(Mlp())
    with pytest.raises(fi.InputError, match="a tuple or a dict"):
        fi.compile(Mlp(), 3)
    with pytest.raises(fi.UnsupportedError, match="Mlp"):
        fi.compile(Mlp(), (torch.randn(2, 5),))


def test_numpy_in_numpy_out():
    module = Mlp().eval()
    model = fi.compile(module, (torch.randn(2, 4),))
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    out = model(x)
    assert isinstance(out, np.ndarray)
    np.testing.assert_allclose(out, module(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6)
