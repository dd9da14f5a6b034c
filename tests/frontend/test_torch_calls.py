# SPDX-License-Identifier: Apache-2.0
"""What a compiled torch module must share with the module, and what not: weights, state, arguments, results."""

import collections

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

import fastinfer as fi  # noqa: E402


class Weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.linear, self.norm = nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3)
        self.gain = nn.Parameter(torch.rand(3))
        self.register_buffer("shift", torch.rand(3))

    def forward(self, i):
        return self.norm(self.linear(self.table(i))) * self.gain + self.shift


def test_training_on_changes_nothing():
    """Constants were views of live parameters: those that were packed stayed, the others followed the optimizer."""
    module, ids = Weights().eval(), torch.tensor([1, 2])
    for source, example in ((module, (ids,)), (torch.export.export(module, (ids,)), None)):
        model = fi.compile(source, example)
        want = model(ids).clone()
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                tensor.add_(5)
        torch.testing.assert_close(model(ids), want, rtol=0, atol=0)
        module.load_state_dict({k: torch.zeros_like(v) for k, v in module.state_dict().items()})
        torch.testing.assert_close(model(ids), want, rtol=0, atol=0)


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return x + self.calls


class Cache(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(4))

    def forward(self, x, i):
        self.cache.index_copy_(0, i[None], x[None])
        return self.cache.sum()


class InPlace(nn.Module):
    def forward(self, x):
        x.add_(1)
        return x * 2


def test_state_is_refused():
    with pytest.raises(fi.UnsupportedError, match="Counter writes to buffer 'calls' in place.*as an output"):
        fi.compile(Counter(), (torch.zeros(1),))
    with pytest.raises(fi.UnsupportedError, match="Cache writes to buffer 'cache' in place"):
        fi.compile(Cache(), (torch.tensor(1.0), torch.tensor(0)))
    with pytest.raises(fi.UnsupportedError, match="InPlace writes to input 'x' in place.*clone"):
        fi.compile(InPlace(), (torch.zeros(2),))
    with pytest.raises(fi.UnsupportedError, match="the exported program writes to buffer 'calls'"):
        fi.compile(torch.export.export(Counter(), (torch.zeros(1),)))


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))

    def forward(self, a, b):
        return a + 2 * b + self.weight


def test_one_tensor_for_two_inputs():
    x, module = torch.randn(3, 4), Sum()
    model = fi.compile(module, (x, x))
    torch.testing.assert_close(model(x, x * 3), module(x, x * 3).detach())
    model = fi.compile(module, {"a": x, "b": module.weight})
    torch.testing.assert_close(model(x, x * 3), module(x, x * 3).detach())


class Fourier(nn.Module):
    def forward(self, x):
        return {"spectrum": torch.fft.fft(x), "n": x.shape[0]}


class Turn(nn.Module):
    def forward(self, z):
        return z * 1j


def test_complex_numbers(tmp_path):
    n = torch.export.Dim("n")
    model = fi.compile(Fourier(), (torch.randn(4, 8),), dynamic_shapes=({0: n},))
    x = torch.randn(7, 8)
    got = model(x)
    torch.testing.assert_close(got["spectrum"], torch.fft.fft(x))
    assert type(got["n"]) is int and got["n"] == 7
    assert list(model.run({"x": x})) == ["spectrum", "n"]
    np.testing.assert_allclose(model(x.numpy())["spectrum"], np.fft.fft(x.numpy()), rtol=1e-4, atol=1e-5)
    z = torch.randn(3, dtype=torch.complex64)
    turn = fi.compile(Turn(), (z,))
    turn.save(tmp_path / "turn.safetensors")
    for m in (turn, fi.load(tmp_path / "turn.safetensors")):
        torch.testing.assert_close(m(z), z * 1j)
        torch.testing.assert_close(m(z.conj()), z.conj() * 1j)
        np.testing.assert_allclose(m(z.numpy()), z.numpy() * 1j)
    with pytest.raises(fi.InputError, match=r"'z': given float32\[3\], needed float32\[3,2\]"):
        turn(torch.randn(3))


class Add(nn.Module):
    def forward(self, a, b):
        return a + b


def test_what_a_dim_states_is_kept(tmp_path):
    """Two inputs with one Dim were broadcast; min and max were forgotten."""
    x, b = torch.randn(3, 4), torch.export.Dim("b")
    model = fi.compile(Add(), (x, x), dynamic_shapes=({0: b}, {0: b}))
    assert model(torch.ones(5, 4), torch.ones(5, 4)).shape == (5, 4)
    with pytest.raises(fi.InputError, match=r"'b': given float32\[1,4\], needed float32\[b,4\].*b is 5.*'a'"):
        model(torch.ones(5, 4), torch.ones(1, 4))
    limited = torch.export.Dim("c", min=2, max=8)
    model = fi.compile(Add(), (x, x), dynamic_shapes=({0: limited}, {0: limited}))
    model.save(tmp_path / "m.safetensors")
    exported = torch.export.export(Add(), (x, x), dynamic_shapes=({0: limited}, {0: limited}))
    for m in (model, fi.load(tmp_path / "m.safetensors"), fi.compile(exported)):
        assert m(torch.ones(8, 4), torch.ones(8, 4)).shape == (8, 4)
        with pytest.raises(fi.InputError, match=r"'a': given float32\[100,4\].*(2|0) to 8"):
            m(torch.ones(100, 4), torch.ones(100, 4))
    with pytest.raises(fi.InputError, match=r"'a': given float32\[1,4\].*2 to 8"):
        model(torch.ones(1, 4), torch.ones(1, 4))


class Flags(nn.Module):
    def forward(self, x, mask=None, double=True, *, scale=None):
        x = x * 2 if double else x
        return x if scale is None else x * scale


@pytest.mark.parametrize("hint", [torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO], ids=["DYNAMIC", "AUTO"])
def test_hints_have_no_name_and_stay_free(hint):
    linear = nn.Linear(4, 3)
    model = fi.compile(linear, (torch.randn(2, 4),), dynamic_shapes=({0: hint},))
    assert not isinstance(model.inputs[0].shape[0], int)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), linear(x).detach(), rtol=1e-5, atol=1e-5)


def test_called_as_the_module(tmp_path):
    x, module = torch.randn(2, 3), Flags()
    model = fi.compile(module, (x, None, True))
    model.save(tmp_path / "m.safetensors")
    for m in (model, fi.load(tmp_path / "m.safetensors")):
        for args, kwargs in (
            ((x,), {}),
            ((x, None), {}),
            ((x, None, True), {}),
            ((x,), {"double": True, "scale": None}),
        ):
            torch.testing.assert_close(m(*args, **kwargs), x * 2)
        with pytest.raises(fi.InputError, match="'double': False was given, but the module was captured with True"):
            m(x, None, False)
        with pytest.raises(fi.InputError, match="'mask': a Tensor was given, but the module was captured with None"):
            m(x, x)
        with pytest.raises(fi.InputError, match="missing argument: 'x'"):
            m(double=True)
        with pytest.raises(fi.InputError, match="no argument is called 'factor'; needed: x, mask, double, scale"):
            m(x, factor=2)


Point = collections.namedtuple("Point", ["x", "y"])


class Nested(nn.Module):
    def forward(self, pair, more):
        y = pair[0] + pair[1] * more["k"]
        return {"logits": y, "aux": (y.sum(), [y * 2, None, 3]), "point": Point(y, y + 1)}


def test_nested_arguments_and_results(tmp_path):
    a, b, c = torch.randn(3, 2, 3).unbind(0)
    model = fi.compile(Nested(), ((a, b), {"k": c}))
    model.save(tmp_path / "m.safetensors")
    want = Nested()((a, b), {"k": c})
    for m in (model, fi.load(tmp_path / "m.safetensors")):
        for got in (m((a, b), {"k": c}), m([a, b], more={"k": c}), m(a, b, c)):
            torch.testing.assert_close(got["logits"], want["logits"])
            torch.testing.assert_close(got["aux"][1][0], want["aux"][1][0])
            assert got["aux"][1][1:] == [None, 3] and type(got["aux"]) is tuple
            torch.testing.assert_close(got["point"].y, want["point"].y)
        assert isinstance(m((a.numpy(), b.numpy()), {"k": c.numpy()})["logits"], np.ndarray)
        assert "logits" in m.run({s.name: x for s, x in zip(m.inputs, (a, b, c))})
        with pytest.raises(fi.InputError, match="'more': a dict of 'j' was given, needed: a dict of 'k'"):
            m((a, b), {"j": c})
        with pytest.raises(fi.InputError, match="'pair': a tuple of 1 was given, needed: a tuple of 2"):
            m((a,), {"k": c})
    assert isinstance(model((a, b), {"k": c})["point"], Point)


class Branches(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


def test_capture_errors_are_short(capfd):
    with pytest.raises(fi.UnsupportedError) as caught:
        fi.compile(Branches(), (torch.randn(3),))
    text = str(caught.value)
    assert "Branches" in text and len(text) < 1000 and text.count("Could not guard") <= 1, text
    assert capfd.readouterr().err == ""


def test_wrong_examples():
    linear, x = nn.Linear(3, 2), torch.zeros(2, 3)
    with pytest.raises(
        fi.InputError, match=r"example_inputs\[0\] is a numpy.ndarray; torch modules need torch tensors"
    ):
        fi.compile(linear, (x.numpy(),))
    with pytest.raises(fi.InputError, match="dynamic_shapes=True; needed"):
        fi.compile(linear, (x,), dynamic_shapes=True)
    with pytest.raises(fi.ModelError, match="a function .* torch.nn.Module"):
        fi.compile(lambda x: x + 1, (x,))
    with pytest.raises(fi.ModelError, match="state dict.*torch.nn.Module"):
        fi.compile(linear.state_dict())


def test_other_files_are_named(tmp_path):
    module, x = nn.Linear(3, 2), torch.zeros(2, 3)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "m.pt2")
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    torch.jit.save(torch.jit.trace(module, x), tmp_path / "script.pt")
    fi.compile(module, (x,)).save(tmp_path / "m.safetensors")
    for name, words in (
        ("m.pt2", "exported torch program.*torch.export.load"),
        ("weights.pt", "torch.save.*torch.nn.Module"),
        ("script.pt", "TorchScript"),
        ("m.safetensors", "fastinfer.load"),
    ):
        with pytest.raises(fi.ModelError, match=f"{name}.*{words}"):
            fi.compile(tmp_path / name)
