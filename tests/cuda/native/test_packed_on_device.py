# SPDX-License-Identifier: Apache-2.0
"""Batches without padding from tensors on the device: packed by the kernel's index map on the host (with a device: the kernel)
and by an index where there is no kernel, against the CPU engine sequence by sequence."""

import ctypes

import numpy as np
import pytest
import torch
from nets import NETS
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import fastinfer as fi
from fastinfer.cuda import native, packed
from fastinfer.cuda.device import open_device
from fastinfer.errors import InputError, UnsupportedError

DEVICE = open_device("cuda").torch


@pytest.fixture(params=["kernel", "index"])
def way(request, monkeypatch):
    if request.param == "index":
        monkeypatch.setattr(native, "missing", lambda device: "not now")
    elif DEVICE.type == "cpu":
        _cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")
        monkeypatch.setattr(native, "missing", lambda device: "")

        def pieces(padded, packed, offsets):
            ragged, ends = native._ragged(padded, packed, offsets, padded, packed), offsets.tolist()
            return [ragged.piece(s, *ends[s : s + 2]) for s in range(len(padded))]

        def pack(padded, offsets, packed):
            for at, to, size in pieces(padded, packed, offsets):
                ctypes.memmove(packed.data_ptr() + to, padded.data_ptr() + at, size)

        def unpack(packed, offsets, padded):
            padded.zero_()
            for to, at, size in pieces(padded, packed, offsets):
                ctypes.memmove(padded.data_ptr() + to, packed.data_ptr() + at, size)

        monkeypatch.setattr(native, "pack_rows", pack)
        monkeypatch.setattr(native, "unpack_rows", unpack)
    return request.param


def network():
    """ids, and a vector for each sequence → one for each token, their mean, and tokens along the last axis."""
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in (("e", (9, 8)), ("w", (8, 6)))
    ]
    tensors.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes = [
        h.make_node("Gather", ["e", "ids"], ["g"]), h.make_node("MatMul", ["g", "w"], ["m"]), h.make_node("Tanh", ["m"], ["y"]),
        h.make_node("ReduceMean", ["y", "one"], ["a"], keepdims=0), h.make_node("Add", ["a", "v"], ["p"]),
        h.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
    ]  # fmt: skip
    of = h.make_tensor_value_info
    inputs = [of("ids", T.INT64, ["n", "l"]), of("v", T.FLOAT, ["n", 6])]
    outputs = [of("y", T.FLOAT, ["n", "l", 6]), of("p", T.FLOAT, ["n", 6]), of("t", T.FLOAT, ["n", 6, "l"])]
    graph = h.make_graph(nodes, "g", inputs, outputs, tensors)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10).SerializeToString()


@pytest.fixture(scope="module")
def models():
    return fi.compile(network()), fi.compile(network(), device="cuda")


def batch(lengths, extent):
    r = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(0, 9, (len(lengths), extent), generator=r)
    for row, n in zip(ids, lengths):
        row[n:] = 1 << 40  # reading it would be an error
    return {"ids": ids.to(DEVICE), "v": torch.randn((len(lengths), 6), generator=r).to(DEVICE)}


@pytest.mark.parametrize("lengths", [[3, 5, 1, 2], [1], [0, 4, 0, 0, 2, 0], [6, 6], [0, 0, 1]])
def test_padded_batches(way, models, lengths):
    cpu, model = models
    inputs = batch(lengths, 6)
    got = {k: v.cpu().numpy() for k, v in model.run_padded(inputs, lengths).items()}
    n = len(lengths)
    assert {k: v.shape for k, v in got.items()} == {"y": (n, 6, 6), "p": (n, 6), "t": (n, 6, 6)}
    for s, length in enumerate(lengths):
        assert not got["y"][s, length:].any() and not got["t"][s, :, length:].any()
        if length == 0:
            assert not got["p"][s].any()
            continue
        ids, v = (inputs[k][s : s + 1].cpu().numpy() for k in ("ids", "v"))
        want = cpu.run({"ids": ids[:, :length], "v": v})
        np.testing.assert_allclose(got["y"][s : s + 1, :length], want["y"], atol=1e-5)
        np.testing.assert_allclose(got["t"][s : s + 1, :, :length], want["t"], atol=1e-5)
        np.testing.assert_allclose(got["p"][s : s + 1], want["p"], atol=1e-5)


@pytest.mark.slow
def test_an_encoder(way):
    proto, _ = NETS["encoder"]()
    cpu, model = fi.compile(proto), fi.compile(proto, device="cuda")
    lengths, r = [3, 1, 7], np.random.default_rng(0)
    ids, mask = r.integers(0, 50, (3, 7)), np.ones((3, 7), np.float32)
    (got,) = model.run_padded(
        {"ids": torch.tensor(ids).to(DEVICE), "mask": torch.tensor(mask).to(DEVICE)}, lengths
    ).values()
    for s, n in enumerate(lengths):
        (want,) = cpu.run({"ids": ids[s : s + 1, :n], "mask": mask[s : s + 1, :n]}).values()
        assert np.abs(got[s : s + 1, :n].cpu().numpy() - want).max() <= 1e-4 * np.abs(want).max()


def test_feeds_of_their_own(models):
    cpu, model = models
    lengths = [(1, 3), (2, 5), (1, 1)]
    feeds = [{"ids": torch.randint(0, 9, s).to(DEVICE), "v": torch.randn(s[0], 6).to(DEVICE)} for s in lengths]
    packing = packed.DevicePacking(model._many.packed(), DEVICE)
    values = [[f["ids"], f["v"]] for f in feeds]
    wrong = [torch.zeros((2, 3), dtype=torch.int64, device=DEVICE), torch.zeros((1, 6), device=DEVICE)]
    *outcomes, error = packed.run_each(packing, [*values, wrong], model._executor.run_device)
    assert isinstance(error, Exception)
    for feed, outcome in zip(feeds, outcomes, strict=True):
        want = cpu.run({k: v.cpu().numpy() for k, v in feed.items()})
        for name, y in zip(("y", "p", "t"), outcome, strict=True):
            np.testing.assert_allclose(y.cpu().numpy(), want[name], atol=1e-5)


def test_what_is_refused(models):
    model = models[1]
    inputs = batch([2, 2], 3)
    for lengths, words in (
        ([4, 1], "needed: 0 to 3"),
        ([0, 0], "not all of them 0"),
        ([1], "1 lengths"),
        ([-1, 1], "0 to 3"),
    ):
        with pytest.raises(InputError, match=words):
            model.run_padded(inputs, lengths)
    with pytest.raises(InputError, match="needed: ids, v"):
        model.run_padded({"ids": inputs["ids"]}, [1, 1])
    with pytest.raises(InputError, match="none that the model takes"):
        model.run_padded({**inputs, "ids": inputs["ids"].float()}, [1, 1])
    row = h.make_graph(
        [h.make_node("Relu", ["x"], ["y"])], "g", [h.make_tensor_value_info("x", T.FLOAT, [2])],
        [h.make_tensor_value_info("y", T.FLOAT, [2])],
    )  # fmt: skip
    fixed = fi.compile(h.make_model(row, opset_imports=[h.make_opsetid("", 21)], ir_version=10), device="cuda")
    with pytest.raises(UnsupportedError, match="cannot be packed"):
        fixed.run_padded({"x": torch.zeros(2, device=DEVICE)}, [1])


@pytest.mark.gpu
def test_run_many_stays_on_the_device(models):
    feeds = [{"ids": torch.randint(0, 9, (1, n)).to(DEVICE), "v": torch.randn(1, 6).to(DEVICE)} for n in (3, 5)]
    for outcome in models[1].run_many(feeds):
        assert all(y.device == DEVICE for y in outcome.values())
