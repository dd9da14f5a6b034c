# SPDX-License-Identifier: Apache-2.0
"""The pretended device refuses and shows what it is there for. Runs under `-p pretend.plugin` only."""

import os
import threading

import pytest
import torch

pytestmark = pytest.mark.skipif("FASTINFER_PRETEND" not in os.environ, reason="needs -p pretend.plugin")
ORDERS = range(24)


@pytest.fixture
def ones():
    return torch.ones(64, device="cuda")


def streams(order):
    from pretend.work import DEVICE

    DEVICE.random.seed(order)
    return torch.cuda.Stream(), torch.cuda.Stream()


def summed(order, waits):
    """1 is written on one stream and read on another."""
    first, second = streams(order)
    with torch.cuda.stream(first):
        x = torch.ones(8, device="cuda")
        done = first.record_event()
    with torch.cuda.stream(second):
        if waits:
            second.wait_event(done)
        return float(x.sum())


def test_streams_without_an_event_between_them_are_in_no_order():
    assert all(summed(order, True) == 8 for order in ORDERS)
    seen = [summed(order, False) == 8 for order in ORDERS]
    assert any(seen) and not all(seen)


def test_the_host_sees_nothing_before_it_waits(ones):
    room = torch.empty(64, pin_memory=True).fill_(7)
    room.copy_(ones, non_blocking=True)
    assert room.eq(7).all()
    torch.cuda.current_stream().synchronize()
    assert room.eq(1).all()


def test_a_pinned_source_is_read_late_and_a_pageable_one_at_once():
    y, z = (torch.zeros(4, device="cuda") for _ in range(2))
    pinned, pageable = torch.ones(4).pin_memory(), torch.ones(4)
    y.copy_(pinned, non_blocking=True)
    z.copy_(pageable, non_blocking=True)
    pinned.fill_(5), pageable.fill_(5)
    assert y.tolist() == [5] * 4 and z.tolist() == [1] * 4


def test_memory_that_is_given_back_is_written_again_by_its_stream():
    wrong = 0
    for order in ORDERS:
        first, second = streams(order)
        with torch.cuda.stream(first):
            x = torch.ones(8, device="cuda")
        second.wait_stream(first)
        with torch.cuda.stream(second):
            y = x * 2
            del x  # its stream may have it again, and the product is not made yet
            wrong += y.tolist() != [2] * 8
    assert 0 < wrong < len(ORDERS)


def captured(work, mode="thread_local"):
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream, capture_error_mode=mode):
        work()
    return graph


def test_a_graph_repeats_its_launches_on_the_same_memory(ones):
    out = torch.zeros(64, device="cuda")
    graph = captured(lambda: out.copy_((ones * 2).view(8, 8).t().reshape(64)))
    assert out.tolist() == [0] * 64
    ones.fill_(3)
    graph.replay()
    assert out.tolist() == [6] * 64


def elsewhere(work):
    def run():
        thread = threading.Thread(target=lambda: failed.append(raised(work)))
        thread.start()
        thread.join()

    failed = []
    return run, failed


def raised(work):
    try:
        work()
    except RuntimeError as e:
        return e
    return None


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(), lambda x: x.cpu(), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: torch.cuda.synchronize(),
        lambda x: x.copy_(torch.zeros(64)), lambda x: x[torch.tensor([1, 2])], lambda x: torch.cuda.current_stream().synchronize(),
        lambda x: torch.cuda.Event().query(),
    ],
)  # fmt: skip
def test_a_capture_refuses_what_waits(ones, work):
    with pytest.raises(RuntimeError, match="capturing|capture"):
        captured(lambda: work(ones))


def test_a_capture_is_spoiled_from_other_threads():
    waits, failed = elsewhere(torch.cuda.synchronize)
    with pytest.raises(RuntimeError, match="another|waited for"):
        captured(waits)
    assert "capturing" in str(failed[0])
    allocates, failed = elsewhere(lambda: torch.zeros(4, device="cuda"))
    with pytest.raises(RuntimeError, match="global"):
        captured(allocates, "global")
    allocates, failed = elsewhere(lambda: torch.zeros(4, device="cuda"))
    captured(allocates)
    assert failed == [None]


def test_a_failed_capture_leaves_its_stream_current_as_torch_does(ones):
    graph, stream, before = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
    with torch.cuda.stream(before):
        with pytest.raises(RuntimeError), torch.cuda.graph(graph, stream=stream):
            ones.sum().item()
        assert torch.cuda.current_stream() == stream
    assert torch.cuda.current_stream() == before


def test_what_a_device_refuses(ones):
    with pytest.raises(RuntimeError, match="same device"):
        ones + torch.ones(64)
    assert (ones + torch.tensor(1.0)).tolist() == [2] * 64  # a scalar may come from the host
    with pytest.raises(TypeError, match="numpy"):
        ones.numpy()
    whole = torch.ones(4, 4, dtype=torch.int32, device="cuda")
    with pytest.raises(RuntimeError, match="not implemented for 'int32'"):
        whole @ whole
    with pytest.raises(torch.cuda.OutOfMemoryError, match="Tried to allocate"):
        torch.empty(1 << 34, dtype=torch.uint8, device="cuda")


def test_views_share_memory(ones):
    arena = torch.zeros(256, dtype=torch.uint8, device="cuda")
    arena[64:128].view(torch.float32).view(4, 4).copy_(ones[:16].view(4, 4))
    assert arena[64:128].view(torch.float32).sum().item() == 16 and arena[:64].sum().item() == 0
    assert arena[64:].data_ptr() == arena.data_ptr() + 64


def test_writes_beyond_an_allocation_are_found():
    from pretend.memory import USE

    x = torch.ones(64, device="cuda")
    x.host.as_strided((65,), (1,))[64] = 0
    del x
    torch.cuda.synchronize()
    assert USE.overruns.pop().startswith("4 bytes next to an allocation of 256")


def test_kernels_take_device_pointers_and_pythons_numbers(ones):
    import numpy as np
    import triton

    from pretend.pretend_kernel import _double_kernel

    out = torch.empty_like(ones)
    _double_kernel[(triton.cdiv(64, 16),)](ones, out, 64, BLOCK=16)
    assert out.tolist() == [2] * 64
    for wrong in (torch.ones(64), ones.cpu()):
        with pytest.raises(ValueError, match="cpu tensor"):
            _double_kernel[(4,)](wrong, out, 64, BLOCK=16)
    with pytest.raises(TypeError, match="specialize"):
        _double_kernel[(4,)](ones, out, np.int64(64), BLOCK=16)
    with pytest.raises(RuntimeError, match="invalid argument"):
        _double_kernel[(4, 70000)](ones, out, 64, BLOCK=16)
