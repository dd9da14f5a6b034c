# SPDX-License-Identifier: Apache-2.0
"""What only a GPU can show: graphs, streams, pinned copies. FASTINFER_CUDA=device pytest tests/cuda"""

import gc
import threading

import numpy as np
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

import fastinfer as fi
from fastinfer.cuda import plan
from fastinfer.cuda.plan import Plan
from fastinfer.cuda.replica import Replica
from fastinfer.errors import InputError

pytestmark = pytest.mark.gpu
WIDTH = 64  # small: a pretended device interprets the kernels


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8
    nodes = [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Relu", ["a"], ["y"])]
    graph = h.make_graph(
        nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, ["n", WIDTH])], [h.make_tensor_value_info("y", T.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10).SerializeToString()


def rows(n, seed=0):
    return np.random.default_rng(n + seed).standard_normal((n, WIDTH)).astype(np.float32)


def test_host_and_device_callers_get_the_same(source):
    model, cpu = fi.compile(source, device="cuda"), fi.compile(source)
    for n in (1, 7, 20):
        x = rows(n)
        y = model(x)
        np.testing.assert_allclose(y, cpu(x), rtol=1e-5, atol=1e-5)
        on_device = model(torch.from_numpy(x).cuda())
        assert on_device.is_cuda
        np.testing.assert_array_equal(on_device.cpu().numpy(), y)


def test_results_are_ordered_behind_the_callers_stream(source):
    """The input is still being computed when the call is made, on another stream than the default one."""
    model = fi.compile(source, device="cuda")
    x = torch.from_numpy(rows(16)).cuda()
    expected = model(x * 3 + 1)
    for _ in range(5):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)  # some 10 ms
            given = x * 3 + 1
            got = model(given)
            later = got + 0
        stream.synchronize()
        torch.testing.assert_close(later, expected, rtol=0, atol=0)


def test_a_size_inside_a_bucket_captures_and_compiles_nothing(source, monkeypatch):
    model = fi.compile(source, device="cuda")
    model(rows(20))
    monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: pytest.fail("a capture"))
    for n in (17, 18, 19, 20):
        assert model(rows(n)).shape == (n, WIDTH)


def test_many_threads(source):
    model = fi.compile(source, device="cuda")
    expected = {n: model(rows(n)) for n in (1, 8, 17)}
    wrong = []

    def call(n):
        for _ in range(4):
            if not np.array_equal(model(rows(n)), expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=call, args=(n,)) for n in (1, 8, 17) * 4]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_tensors_elsewhere_are_refused_or_taken(source):
    model = fi.compile(source, device="cuda")
    x = torch.from_numpy(rows(3))
    assert model(x).device.type == "cpu"  # from where they came
    with pytest.raises(InputError, match="float32"):
        model(x.cuda().double())


def test_out_of_memory_leaves_the_model_and_the_device_usable(source):
    model = fi.compile(source, device="cuda")
    before = model(rows(2))
    free = torch.cuda.mem_get_info()[0]
    hog = torch.empty(int(free * 0.97), dtype=torch.uint8, device="cuda")
    with pytest.raises(fi.FastinferError, match="not enough memory"):
        model(np.zeros((16_000_000, WIDTH), np.float32))
    del hog
    torch.cuda.empty_cache()
    np.testing.assert_array_equal(model(rows(2)), before)


def test_tuning_keeps_the_results(source, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path))
    model = fi.compile(source, device="cuda", precision="bf16")
    x = rows(16)
    before = model(x)
    model.tune(x)
    np.testing.assert_allclose(model(x), before, rtol=2e-2, atol=2e-2)
    assert list(tmp_path.glob("tuning-*.json"))


def test_other_threads_go_on_while_a_graph_is_captured(source, monkeypatch):
    """Their allocations, copies and waits neither fail nor spoil the capture."""
    model, other = fi.compile(source, device="cuda"), fi.compile(source, device="cuda")
    expected, launch, seen = other(rows(3)), Plan.launch, []

    def beside(self, which=slice(None)):
        launch(self, which)
        if torch.cuda.is_current_stream_capturing() and not seen:
            seen.append(None)
            thread = threading.Thread(
                target=lambda: seen.append((other(rows(3)), torch.ones(9, device="cuda").sum().item()))
            )
            thread.start()
            thread.join()

    monkeypatch.setattr(Plan, "launch", beside)
    model(rows(5))
    np.testing.assert_array_equal(seen[1][0], expected)
    assert seen[1][1] == 9


def test_callers_on_several_streams_do_not_meet_in_the_buffers(source):
    """One plan, its input and arena used by three calls, of which the host waits for the last alone."""
    model = fi.compile(source, device="cuda")
    x = [torch.from_numpy(rows(8, seed)).cuda() for seed in range(2)]
    expected = [model(t).cpu() for t in x]
    for _ in range(4):
        streams, got = [torch.cuda.Stream() for _ in x], []
        for stream, given in zip(streams, x, strict=True):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                torch.cuda._sleep(5_000_000)
                got.append(model(given))
        np.testing.assert_array_equal(model(rows(8, 1)), expected[1])
        torch.cuda.synchronize()
        assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


def test_plans_dropped_under_a_caller_do_not_lose_his_results(source, monkeypatch):
    """His work is in their memory until it is done, and the host is far ahead of it."""
    model = fi.compile(source, device="cuda")
    x = torch.from_numpy(rows(4)).cuda()
    expected, run = model(x).cpu(), Replica.run_device

    def dropped(self, tensors, n=0):
        model.trim()
        return run(self, tensors, n)

    monkeypatch.setattr(Replica, "run_device", dropped)
    for _ in range(4):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(5_000_000)
            got = model(x)
            gc.collect()
            assert torch.equal(got.cpu(), expected)


def test_what_cannot_be_captured_runs_node_by_node(monkeypatch):
    """A torch form that waits for the device, which only the capture notices; the caller's stream stays the current one."""
    graph = h.make_graph(
        [h.make_node("Neg", ["x"], ["y"])], "g", [h.make_tensor_value_info("x", T.FLOAT, [2, 3])],
        [h.make_tensor_value_info("y", T.FLOAT, [2, 3])],
    )  # fmt: skip
    monkeypatch.setattr(plan, "TABLE", {})
    monkeypatch.setattr(plan, "find", lambda domain, op: lambda call: -call.x(0) + 0 * call.x(0).sum().item())
    model = fi.compile(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), device="cuda")
    before, x = torch.cuda.current_stream(), np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(model(x), -x)
    assert torch.cuda.current_stream() == before
    with pytest.raises(plan.NotPlannable, match="torch refuses Neg.*captur"):
        model._executor.plan_of(x)
