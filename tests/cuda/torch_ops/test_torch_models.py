# SPDX-License-Identifier: Apache-2.0
"""Whole models by torch forms alone, node by node and planned, against the CPU engine. The kernels of ours are not asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from nets import NETS

import fastinfer as fi
from fastinfer import _core, frontend, passes
from fastinfer.cuda import plan as planning
from fastinfer.cuda.chains import Chains
from fastinfer.cuda.device import open_device
from fastinfer.cuda.dynamic import Dynamic
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.siblings import Siblings
from fastinfer.cuda.tuning import Tuner
from fastinfer.lower import lower

BENCH = Path(__file__).resolve().parents[3] / ".cache" / "bench"
FILES = ["mlp", "minilm_l6_32", "lstm_classifier_64", "resnet18", pytest.param("swin_t", marks=pytest.mark.slow)]
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "f16": 4e-3}


def _program(source, precision):
    program = lower(passes.run_pipeline(frontend.load(source)))
    return DeviceProgram(program, open_device("cuda"), precision_of(precision))


def _planned(program, feeds, monkeypatch):
    monkeypatch.setattr(planning, "TABLE", {})
    monkeypatch.setattr(planning, "find_chains", lambda *_: Chains())
    monkeypatch.setattr(planning, "find_siblings", lambda *_: Siblings())
    shapes = [(_core.dtype_code(a.dtype), tuple(a.shape)) for a in feeds]
    plan = planning.make_plan(program, shapes, Tuner(program.device))
    for buffer, array in zip(plan.inputs, feeds, strict=True):
        buffer.copy_(torch.from_numpy(array))
    plan.launch()
    first = [y.clone() for y in plan.outputs]
    plan.launch()  # what a node keeps from its first run must not change the second
    for a, b in zip(first, plan.outputs, strict=True):
        assert torch.equal(a, b)
    assert all(step.kernel.startswith("torch.") or step.node < 0 for step in plan.steps)
    return plan.outputs


def _check(source, named, precision, monkeypatch):
    want = list(fi.compile(source).run(named).values())
    program = _program(source, precision)
    feeds = [named[port["name"]] for port in program.graph.inputs]
    dynamic = Dynamic(program)
    for results in (dynamic.run(feeds), _planned(program, feeds, monkeypatch)):
        for got, right in zip(results, want, strict=True):
            assert tuple(got.shape) == right.shape
            error = np.abs(got.double().cpu().numpy() - right).max() / np.abs(right).max()
            assert error <= TOLERANCE[precision]
    assert not dynamic.host_nodes


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", NETS)
def test_small_networks(name, precision, monkeypatch):
    proto, make = NETS[name]()
    _check(proto, make(np.random.default_rng(5), 2), precision, monkeypatch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FILES)
def test_files(name, precision, monkeypatch):
    path = BENCH / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    rng, named = np.random.default_rng(0), {}
    for port in onnx.load(path, load_external_data=False).graph.input:
        shape = [d.dim_value or 2 for d in port.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
        whole = rng.integers(0, 2, shape) if dtype.kind == "i" else rng.standard_normal(shape)
        named[port.name] = np.ones(shape, dtype) if "mask" in port.name else whole.astype(dtype)
    _check(str(path), named, precision, monkeypatch)
