# SPDX-License-Identifier: Apache-2.0
"""Every real model gives ONNX Runtime's outputs."""

import numpy as np
import onnxruntime as ort
import pytest

import fastinfer as fi
from fastinfer.bench import disagreement
from models.cases import CASES


def peer(path, inputs, plain):
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, x) for x in inputs]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_outputs_equal_onnxruntime(case):
    assert case.tolerance <= 1e-4 or case.why
    path, inputs = case.path(), case.inputs()
    model = fi.compile(path)
    for x, expected in zip(inputs, peer(path, inputs, case.plain)):
        gap = disagreement(list(model.run(x).values()), expected)
        assert gap <= case.tolerance, f"{gap:.2e} at {[np.shape(v) for v in x.values()]}"


@pytest.mark.parametrize("case", [c for c in CASES if c.tolerance <= 1e-4], ids=lambda c: c.name)
def test_saved_program_gives_the_same_bits(case, tmp_path):
    model, x = fi.compile(case.path()), case.inputs()[0]
    model.save(tmp_path / "m.safetensors")
    for a, b in zip(model.run(x).values(), fi.load(tmp_path / "m.safetensors").run(x).values()):
        np.testing.assert_array_equal(a, b)
