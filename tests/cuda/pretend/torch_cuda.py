# SPDX-License-Identifier: Apache-2.0
"""torch.cuda over the pretended device."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from pretend import memory
from pretend.memory import USE
from pretend.work import DEVICE, Queue, Record

POOL = 32  # streams of a priority; torch hands them out in turns
_POOLS: dict[int, list[Queue]] = {}
_NEXT: dict[int, Any] = {}


class Stream:
    def __init__(self, device: Any = None, priority: int = 0, queue: Queue | None = None) -> None:
        self.device, self.priority = torch.device("cuda", 0), priority
        if queue is None:
            with DEVICE.lock:
                pool = _POOLS.setdefault(priority, [DEVICE.queue(f"{priority}.{i}") for i in range(POOL)])
                queue = pool[next(_NEXT.setdefault(priority, itertools.cycle(range(POOL))))]
        self.queue = queue

    @property
    def cuda_stream(self) -> int:
        return DEVICE.queues.index(self.queue)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.queue is self.queue

    def __hash__(self) -> int:
        return id(self.queue)

    def synchronize(self) -> None:
        DEVICE.host_waits("a stream is waited for", self.queue)
        DEVICE.finish(self.queue)

    def query(self) -> bool:
        DEVICE.host_waits("a stream is asked", self.queue)
        return not self.queue.work

    def wait_event(self, event: Event) -> None:
        if event.record_ is not None:
            DEVICE.wait(self.queue, event.record_)

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.timed, self.record_, self.queue = enable_timing, None, None

    def record(self, stream: Stream | None = None) -> None:
        self.queue = (stream or current_stream()).queue
        self.record_: Record | None = DEVICE.record(self.queue)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        if self.record_ is not None:
            DEVICE.host_waits("an event is waited for", self.queue)
            DEVICE.reach(self.record_)

    def query(self) -> bool:
        DEVICE.host_waits("an event is asked", self.queue)
        DEVICE.host_allocates("an event is asked")
        return self.record_ is None or bool(self.record_.reached_at)

    def elapsed_time(self, end: Event) -> float:
        for event in (self, end):
            if not event.timed or event.record_ is None:
                raise ValueError("Both events must be created with argument 'enable_timing=True' and be recorded.")
            if not event.record_.reached_at:
                raise RuntimeError("CUDA error: device not ready")
        assert self.record_ and end.record_
        return max(1e-3, 1e3 * (end.record_.reached_at - self.record_.reached_at))


class CUDAGraph:
    def __init__(self, keep_graph: bool = False) -> None:
        self._capture: Any = None
        self._whole = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global", **_: Any) -> None:
        self._capture = DEVICE.begin(capture_error_mode)

    def capture_end(self) -> None:
        DEVICE.end(self._capture)
        self._whole = True

    def replay(self) -> None:
        if not self._whole:
            raise RuntimeError("CUDAGraph::replay() was called without a preceding successful capture.")
        launches = tuple(self._capture.launches)

        def run() -> None:
            for work in launches:
                work()

        DEVICE.launch(run)

    def reset(self) -> None:
        self._capture, self._whole = None, False

    def pool(self) -> tuple[int, int]:
        return 0, id(self)


class graph:
    def __init__(self, cuda_graph: CUDAGraph, pool: Any = None, stream: Stream | None = None, capture_error_mode: str = "global",
                 **_: Any) -> None:  # fmt: skip
        self._graph, self._mode = cuda_graph, capture_error_mode
        self._stream = StreamContext(stream or Stream())

    def __enter__(self) -> None:
        synchronize()
        self._stream.__enter__()
        self._graph.capture_begin(capture_error_mode=self._mode)

    def __exit__(self, *_: Any) -> None:
        self._graph.capture_end()  # if that raises, torch too leaves its stream the current one
        self._stream.__exit__()


class StreamContext:
    def __init__(self, stream: Stream | None) -> None:
        self._stream, self._before = stream, DEVICE.current

    def __enter__(self) -> None:
        self._before = DEVICE.current
        DEVICE.local.queue = self._before if self._stream is None else self._stream.queue

    def __exit__(self, *_: Any) -> None:
        DEVICE.local.queue = self._before


@contextlib.contextmanager
def device_of(device: Any) -> Iterator[None]:
    if _index(device) != 0:
        raise RuntimeError("CUDA error: invalid device ordinal")
    yield


def _index(device: Any) -> int:
    if isinstance(device, torch.device | str):
        return torch.device(device).index or 0
    return device or 0


def current_stream(device: Any = None) -> Stream:
    return Stream(queue=DEVICE.current)


def synchronize(device: Any = None) -> None:
    DEVICE.host_waits("the device is waited for")
    DEVICE.finish_all()


def get_device_properties(device: Any = None) -> Any:
    if _index(device) != 0:
        raise AssertionError("Invalid device id")
    return SimpleNamespace(
        name="NVIDIA H200 (pretended)", major=9, minor=0, multi_processor_count=132, shared_memory_per_block_optin=227 << 10,
        L2_cache_size=1 << 20, total_memory=USE.limit, warp_size=32, regs_per_multiprocessor=65536,
    )  # fmt: skip


def _sleep(cycles: int) -> None:
    DEVICE.launch(lambda: time.sleep(1e-4))


def install() -> None:
    """Over the torch.cuda of a build without CUDA; for the life of the process."""
    cuda: Any = torch.cuda
    found = {
        "is_available": lambda: True, "_lazy_init": lambda: None, "init": lambda: None, "is_initialized": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0, "set_device": device_of, "device": device_of, "Stream": Stream,
        "Event": Event, "CUDAGraph": CUDAGraph, "graph": graph, "stream": StreamContext, "current_stream": current_stream,
        "default_stream": lambda device=None: Stream(queue=DEVICE.default), "synchronize": synchronize, "_sleep": _sleep,
        "get_device_properties": get_device_properties, "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: get_device_properties().name, "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (USE.limit - USE.now, USE.limit), "memory_allocated": lambda device=None: USE.now,
        "max_memory_allocated": lambda device=None: USE.most, "is_current_stream_capturing": lambda: bool(DEVICE.capturing()),
    }  # fmt: skip
    for name, value in found.items():
        setattr(cuda, name, value)
    torch.version.cuda = "13.0"
    torch.__future__.set_overwrite_module_params_on_conversion(
        True
    )  # a Parameter of the host cannot become one of these
    for name in ("empty", "zeros", "ones", "full"):
        setattr(torch, name, _pinning(getattr(torch, name)))
    torch.Tensor.pin_memory = _pin_memory  # type: ignore[method-assign]
    torch.Tensor.is_pinned = lambda self, *_: memory.is_pinned(self)  # type: ignore[method-assign]


def _pinning(make: Any) -> Any:
    def made(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        tensor = make(*args, **kwargs)
        return _pin_memory(tensor) if pin_memory else tensor

    return made


def _pin_memory(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    made = memory.pinned(tensor.size(), tensor.stride(), tensor.dtype)
    made.copy_(tensor)
    return made
