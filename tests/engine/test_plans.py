# SPDX-License-Identifier: Apache-2.0
"""Plans: caching, bounds, memory, concurrency, fork."""

import os
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import build

import fastinfer as fi


def chain(n, rank=2):
    """n transposes of x, so that the arena has something to plan."""
    nodes = [
        helper.make_node("Transpose", [f"v{i}"], [f"v{i + 1}"], perm=list(range(rank))[::-1], name=f"t{i}")
        for i in range(n)
    ]
    x = helper.make_tensor_value_info("v0", TensorProto.FLOAT, [f"d{i}" for i in range(rank)])
    y = helper.make_tensor_value_info(f"v{n}", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]))


def test_arena_reuses_dead_storage():
    m = build(chain(9))
    x = np.random.rand(64, 48).astype(np.float32)
    np.testing.assert_array_equal(m(x), x.T)
    # Two intermediates are alive at a time, however long the chain is.
    assert m.explain({"v0": x}).arena_bytes == 2 * x.nbytes


def test_plan_cache_is_bounded_and_trimmed():
    m = build(chain(3))
    for n in range(1, 101):
        x = np.random.rand(n, 3).astype(np.float32)
        np.testing.assert_array_equal(m(x), x.T)
    assert m.memory().plans == 64
    assert m.memory().arenas > 0
    m.trim()
    assert (m.memory().plans, m.memory().arenas) == (0, 0)
    np.testing.assert_array_equal(m(x), x.T)


def test_many_threads_share_a_model():
    m = build(chain(6), threads=2)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            x = rng.random((int(rng.integers(1, 40)), int(rng.integers(1, 40)))).astype(np.float32)
            if not np.array_equal(m(x), x):
                wrong.append(x.shape)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_run():
    m = build(chain(5), threads=2)
    x = np.random.rand(700, 700).astype(np.float32)
    expected = m(x)
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = all(np.array_equal(m(x), expected) for _ in range(3))
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    np.testing.assert_array_equal(m(x), expected)


def test_outputs_do_not_share_memory_between_calls():
    m = build(chain(2))
    a = np.random.rand(8, 8).astype(np.float32)
    first = m(a)
    second = m(a + 1)
    np.testing.assert_array_equal(first, a)
    np.testing.assert_array_equal(second, a + 1)


def test_one_value_as_two_outputs_and_an_input_as_output():
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    c = numpy_helper.from_array(np.float32(3), "c")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "y", "x", "c")]
    m = build(helper.make_model(helper.make_graph([node], "g", [x], outs, [c])))
    a = np.random.rand(3, 5).astype(np.float32)
    y1, y2, same, three = m(a)
    np.testing.assert_array_equal(y1, a.T)
    np.testing.assert_array_equal(y2, a.T)
    np.testing.assert_array_equal(same, a)
    assert three == 3
    for p, q in ((y1, y2), (same, a)):
        assert not np.shares_memory(p, q)


def test_non_contiguous_and_foreign_endian_inputs():
    m = build(chain(1))
    a = np.random.rand(6, 8).astype(np.float32)
    np.testing.assert_array_equal(m(a[::2, ::-1]), a[::2, ::-1].T)
    np.testing.assert_array_equal(m(a.astype(">f4")), a.T)
    np.testing.assert_array_equal(m(np.asfortranarray(a)), a.T)


def test_huge_extents_are_refused():
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 0])
    s = helper.make_tensor_value_info("s", TensorProto.INT64, ["k"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    m = build(helper.make_model(helper.make_graph(nodes, "g", [x, s], [y])))
    with pytest.raises(fi.InputError, match="2\\^48"):
        m.run({"x": np.zeros((1, 1, 0), np.float32), "s": np.array([2**40, 2**40, 0])})


def test_value_required_in_one_segment_is_folded_in_the_next():
    """Reshape ends the segment on its target; the Cast after it then folds on the value the plan holds."""
    nodes = [
        helper.make_node("Add", ["t", "t"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
        helper.make_node("Cast", ["target"], ["z"], to=TensorProto.INT32),
    ]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("t", TensorProto.INT64, None),
    ]
    outs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("z", TensorProto.INT32, None),
    ]
    m = build(helper.make_model(helper.make_graph(nodes, "g", ports, outs)))
    x = np.arange(8, dtype=np.float32)
    for t in ([1, 2], [2, 1]):
        got = m.run({"x": x, "t": np.array(t)})
        np.testing.assert_array_equal(got["y"], x.reshape(np.array(t) * 2))
        np.testing.assert_array_equal(got["z"], np.array(t, np.int32) * 2)
