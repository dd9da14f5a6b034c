# SPDX-License-Identifier: Apache-2.0
"""Plans under several callers, wrong inputs, and calls that fail on the way."""

import threading
import time
import weakref

import numpy as np
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h

import fastinfer as fi
from fastinfer.cuda.executor import REPLICAS, Executor
from fastinfer.cuda.replica import Replica
from fastinfer.errors import InputError


def model_of(*inputs):
    """The sum of the first and the last; the output has no name for its rows, so that batches have no buckets."""
    nodes = [h.make_node("Add", [inputs[0], inputs[-1]], ["y"])]
    ports = [h.make_tensor_value_info(i, T.FLOAT, [f"rows of {i}", 4]) for i in inputs]
    graph = h.make_graph(nodes, "g", ports, [h.make_tensor_value_info("y", T.FLOAT, [None, 4])])
    return fi.compile(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), device="cuda")


def ones(n):
    return np.ones((n, 4), np.float32)


def threads_of(count, work):
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for t in threads:
        t.start()
    return threads


def test_callers_of_a_new_shape_share_few_plans(monkeypatch):
    model, run = model_of("x"), Replica.run_host
    together, results = threading.Barrier(10), []

    def slowly(self, arrays, rows=0):
        time.sleep(0.05)
        return run(self, arrays, rows)

    def call():
        together.wait()
        results.append(model.run({"x": ones(3)})["y"])

    monkeypatch.setattr(Replica, "run_host", slowly)
    for t in threads_of(10, call):
        t.join(30)
    assert len(results) == 10 and all((y == 2).all() for y in results)
    assert 1 <= model.memory().plans <= REPLICAS


def test_wrong_shapes_put_out_no_plans():
    model = model_of("a", "b")
    model._executor._most = 2
    model.run({"a": ones(2), "b": ones(2)})
    for n in range(3, 8):
        with pytest.raises(InputError):
            model.run({"a": ones(n), "b": ones(n - 1)})
    assert list(model._executor._cache) == [tuple(model._executor._signature([ones(2), ones(2)])[0])]
    for n in range(2, 6):
        model.run({"a": ones(n), "b": ones(n)})
    assert model.memory().plans == 2


def test_callers_of_ready_shapes_do_not_wait_for_plans_that_go(monkeypatch):
    """Whoever drops plans waits for the device, and for captures."""
    model = model_of("x")
    model._executor._most = 2
    for n in (1, 2):
        model.run({"x": ones(n)})
    waits, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(Executor, "_finish", lambda self: (waits.set(), go_on.wait(30)))
    (third,) = threads_of(1, lambda: model.run({"x": ones(3)}))
    try:
        assert waits.wait(30)
        others = threads_of(1, lambda: model.run({"x": ones(2)}))
        others[0].join(20)
        assert not others[0].is_alive()
    finally:
        go_on.set()
        third.join(30)


def test_what_was_half_made_is_gone_before_memory_is_given_back(monkeypatch):
    model, prepare, trim, half = model_of("x"), Replica.prepare, Executor.trim, []

    def once(self):
        if not half:
            half.append(weakref.ref(self))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        prepare(self)

    def trimmed(self):
        half.append(half[0]() is None)
        trim(self)

    monkeypatch.setattr(Replica, "prepare", once)
    monkeypatch.setattr(Executor, "trim", trimmed)
    assert (model.run({"x": ones(2)})["y"] == 2).all()
    assert half[1] is True and model.memory().plans == 1


def test_all_forms_of_a_model_make_room(monkeypatch):
    """The packed form has plans of its own."""
    port = h.make_tensor_value_info
    graph = h.make_graph(
        [h.make_node("Tanh", ["x"], ["y"])], "g",
        [port("x", T.FLOAT, ["n", "l", 4])], [port("y", T.FLOAT, ["n", "l", 4])],
    )  # fmt: skip
    model = fi.compile(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), device="cuda")
    packed, run, failures = model._many.packed().executor, Replica.run_host, [1]
    packed.run([np.ones((1, 6, 4), np.float32)])
    assert packed.cached_plans == 1

    def once(self, arrays, rows=0):
        if failures:
            failures.pop()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(self, arrays, rows)

    monkeypatch.setattr(Replica, "run_host", once)
    model.run({"x": np.ones((1, 2, 4), np.float32)})
    assert packed.cached_plans == 0 and model.memory().plans == 1


def test_an_interrupted_maker_holds_nobody_up(monkeypatch):
    model, prepare, failures = model_of("x"), Replica.prepare, [KeyboardInterrupt] * (2 * REPLICAS)

    def interrupted(self):
        if failures:
            raise failures.pop()
        prepare(self)

    monkeypatch.setattr(Replica, "prepare", interrupted)
    for _ in range(2 * REPLICAS):
        with pytest.raises(KeyboardInterrupt):
            model.run({"x": ones(2)})
    assert model.memory().plans == 0
    assert (model.run({"x": ones(2)})["y"] == 2).all()
