# SPDX-License-Identifier: Apache-2.0
"""Graphs by hand, and what becomes of them: a FastinferError or an answer; never a crash, another exception or a wait."""

import numpy as np
from onnx import TensorProto, helper
from samples import time_limit

import fastinfer as fi

F, N, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
MAX, MIN = 2**63 - 1, -(2**63)
X = np.arange(4, dtype=np.float32)


def port(name, code=F, shape=("n",)):
    return helper.make_tensor_value_info(name, code, shape)


def model(nodes, inputs=(), outputs=("y",), weights=(), functions=(), imports=(), kind=F):
    outs = [port(n, kind, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", list(inputs), outs, list(weights))
    opsets = [helper.make_opsetid(d, v) for d, v in (("", 21), *imports)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def op(name, *inputs, **attributes):
    return helper.make_node(name, list(inputs), ["y"], **attributes)


def attempt(source, feeds=None):
    """The outputs, or the error's text."""
    try:
        with time_limit(20):
            return fi.compile(source, threads=1).run(feeds or {})
    except fi.FastinferError as e:
        assert str(e)
        return str(e)


def branch(node, weights=()):
    return helper.make_graph([node], "b", [], [port("z", F, None)], list(weights))


def identity(name="w"):
    return helper.make_node("Identity", [name], ["y"])
