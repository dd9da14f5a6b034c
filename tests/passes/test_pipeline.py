# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fastinfer import passes
from fastinfer.passes import verify
from fastinfer.passes.eliminate_dead_code import eliminate_dead_code

from .graphs import counts, parse, random


def test_subgraphs_are_rewritten_too() -> None:
    model = parse("""g (bool c, float[3] x) => (float[3] y) {
        k = Constant<value_float=0.0>()
        y = If(c) <then_branch = t () => (float[3] p) { q = Add(x, k) r = Neg(q) p = Identity(r) },
                   else_branch = e () => (float[3] p2) { q2 = Exp(x) q3 = Exp(x) p2 = Add(q2, q3) }> }""")
    for condition in (True, False):
        inputs = {"c": np.array(condition), "x": random(3)}
        expected = verify.run_reference(model, inputs)
        rewritten = passes.run_pipeline(model.clone(), verify=True, sample_inputs=inputs)
        verify.check_results(expected, verify.run_reference(rewritten, inputs))
        assert counts(rewritten) == {"If": 1, "Neg": 1, "fastinfer.Pointwise": 1}


def test_a_broken_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_it(model: ir.Model) -> bool:
        model.graph[0].op_type = "Abs"
        return True

    monkeypatch.setattr(passes, "PIPELINE", [eliminate_dead_code, break_it])
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(
        verify.VerificationError, match="after pass break_it .done before: eliminate_dead_code.: output 0 is off"
    ):
        passes.run_pipeline(model, verify=True, sample_inputs={"x": random(2)})
