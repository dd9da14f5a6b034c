# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import onnx_ir as ir

from fastinfer.passes.eliminate_dead_code import eliminate_dead_code
from fastinfer.passes.fold_constants import fold_constants
from fastinfer.passes.simplify_shapes import simplify_shapes

from .graphs import check, parse, random


def test_shape_arithmetic_leaves_the_graph() -> None:
    model = parse("""g (float[N,S,768] x) => (float[N,12,S,64] y) {
        shape = Shape(x)
        i0 = Constant<value_int=0>() i1 = Constant<value_int=1>() axis = Constant<value_ints=[0]>()
        n = Gather(shape, i0) s = Gather(shape, i1) n1 = Unsqueeze(n, axis) s1 = Unsqueeze(s, axis)
        heads = Constant<value_ints=[12, 64]>()
        target = Concat<axis=0>(n1, s1, heads)
        r = Reshape(x, target)
        y = Transpose<perm=[0,2,1,3]>(r) }""")

    def step(m: ir.Model) -> bool:
        fold_constants(m)
        simplify_shapes(m)
        return eliminate_dead_code(m)

    assert check(model, step, {"x": random(2, 3, 768)}) == {"Reshape": 1, "Transpose": 1}
    assert list(model.graph[0].inputs[1].const_value.numpy()) == [0, 0, 12, 64]
