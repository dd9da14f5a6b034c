# SPDX-License-Identifier: Apache-2.0
"""A damaged ONNX model gives a FastinferError or an answer, never a crash: bytes of the file, and edits of its graph
(types, shapes, attributes, connections, weights) that still parse."""

import os
import random

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from samples import SAMPLES, time_limit

import fastinfer as fi

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "120"))


def attempt(source, feeds):
    try:
        with time_limit():  # an edit can make a Loop endless
            fi.compile(source, threads=1).run(feeds)
    except fi.FastinferError as e:
        assert str(e)


@pytest.mark.parametrize("name", SAMPLES)
def test_bytes(name):
    proto, feeds = SAMPLES[name]()
    data, rng = proto.SerializeToString(), random.Random(3)
    for _ in range(ROUNDS):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 20))):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.15:
            damaged = damaged[: rng.randrange(len(damaged))]
        attempt(bytes(damaged), feeds)


def edit_attribute(rng, node):
    if not node.attribute:
        node.attribute.append(
            helper.make_attribute(rng.choice(("axis", "strides", "pads", "group")), rng.choice((0, -7, 2**40)))
        )
        return
    a = rng.choice(node.attribute)
    if a.type == onnx.AttributeProto.INT:
        a.i = rng.choice((-1, 0, 1, 3, 1000, -(2**62), 2**62))
    elif a.type == onnx.AttributeProto.INTS:
        values = [rng.choice((-1, 0, 1, 2, 9, 2**33)) for _ in range(rng.choice((0, 1, 2, 4, 9)))]
        del a.ints[:]
        a.ints.extend(values)
    else:
        node.attribute.remove(a)


def edit(rng, graph):
    node = rng.choice(graph.node)
    kind = rng.randrange(8)
    if kind == 0:
        edit_attribute(rng, node)
    elif kind == 1 and node.input:
        names = ["", "nowhere", *(o for n in graph.node for o in n.output), *(i.name for i in graph.initializer)]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 2:
        node.op_type = rng.choice(
            ("Add", "Conv", "MatMul", "Reshape", "Gather", "Nope", "LSTM", "Softmax", "Resize", "TopK")
        )
    elif kind == 3 and graph.initializer:
        t = rng.choice(graph.initializer)
        shape = rng.choice([(), (0,), (1,), (3, 3), (2, 2, 2), (1, 1, 1, 1, 1)])
        dtype = rng.choice((np.float32, np.float64, np.int64, np.bool_, np.float16))
        t.CopyFrom(
            numpy_helper.from_array(
                (np.random.default_rng(rng.random().__hash__() % 1000).standard_normal(shape) * 9).astype(dtype), t.name
            )
        )
    elif kind == 4 and graph.initializer:
        t = rng.choice(graph.initializer)
        del t.dims[:]
        t.dims.extend(rng.choice([(-1,), (2**40, 2**40), (7,), (), (0, 5)]))
    elif kind == 5:
        graph.node.insert(rng.randrange(len(graph.node)), rng.choice(graph.node))
    elif kind == 6:
        graph.node.remove(node)
    elif graph.input:
        t = rng.choice(graph.input).type.tensor_type
        t.elem_type = rng.choice((0, 1, 7, 9, 11, 99))
        if rng.random() < 0.5:
            t.ClearField("shape")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLES)
def test_edited_graphs(name):
    proto, feeds = SAMPLES[name]()
    rng = random.Random(4)
    for _ in range(ROUNDS * 2):
        damaged = onnx.ModelProto()
        damaged.CopyFrom(proto)
        for _ in range(rng.choice((1, 1, 2, 4))):
            if damaged.graph.node:
                edit(rng, damaged.graph)
        attempt(damaged, feeds)
