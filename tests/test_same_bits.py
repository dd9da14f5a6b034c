# SPDX-License-Identifier: Apache-2.0
"""Whole models: right (against float64-checked ONNX Runtime where present, else onnx.reference), and property 4 of the
design: a sample has the same bits alone, in a batch of 7, and on 1 or 2 threads, on every instruction set."""

import numpy as np
import pytest
from nets import NETS
from onnx.reference import ReferenceEvaluator
from support import ISAS

import fastinfer as fi
from fastinfer import _core


@pytest.fixture(params=ISAS)
def isa(request):
    _core.force_isa(request.param)
    yield request.param
    _core.force_isa(_core.detected_isa())


@pytest.mark.parametrize("name", NETS)
def test_close_to_the_reference(name, isa):
    proto, make = NETS[name]()
    feeds = make(np.random.default_rng(5), 2)
    want = ReferenceEvaluator(proto).run(None, feeds)[0]
    model = fi.compile(proto, strict=True)
    (got,) = model.run(feeds).values()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("name", NETS)
def test_bf16_is_close_to_the_reference(name, isa):
    """Loose, and worse than float32: eight bits per operand, in every layer."""
    proto, make = NETS[name]()
    feeds = make(np.random.default_rng(5), 2)
    want = ReferenceEvaluator(proto).run(None, feeds)[0]
    (got,) = fi.compile(proto, precision="bf16", strict=True).run(feeds).values()
    assert np.abs(got - want).max() <= 3e-2 * np.abs(want).max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_company_does_not_change_bits(name, isa, precision):
    proto, make = NETS[name]()
    feeds = make(np.random.default_rng(6), 7)
    one, two = (fi.compile(proto, precision=precision, threads=t, strict=True) for t in (1, 2))
    (batch,) = one.run(feeds).values()
    np.testing.assert_array_equal(batch, next(iter(two.run(feeds).values())), err_msg="1 and 2 threads")
    for r in range(7):
        alone = {k: v[r : r + 1] for k, v in feeds.items()}
        for model in (one, two):
            (got,) = model.run(alone).values()
            np.testing.assert_array_equal(got, batch[r : r + 1], err_msg=f"row {r}, {model.threads} threads")
