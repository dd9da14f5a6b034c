# SPDX-License-Identifier: Apache-2.0
"""Seconds of device work, by events, with operands out of the L2; several contenders in turns. Without a device (--tiny) the
same code runs on the CPU, where its figures mean nothing."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

CUDA = torch.cuda.is_available()
SMALL = "--tiny" in sys.argv or not CUDA  # sizes that an interpreter can do
DEVICE = torch.device("cuda" if CUDA else "cpu")
Work = Callable[[], object]
Job = tuple[str, Callable[[], dict[str, Any]]]  # what a row is about; makes it


class Flush:
    """Writes more than the L2 holds, then reads it: lines that were only written would have to go back to memory while the
    contender reads its operands. Both take some 100 us, so that the host's launches are ahead of the device."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size if CUDA else 4
        self._buffer = torch.empty(size, dtype=torch.int32, device=DEVICE)  # four times as many bytes

    def __call__(self) -> None:
        self._buffer.zero_()
        self._buffer.amax()


def once(work: Work, before: Work) -> float:
    before()
    if not CUDA:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def race(contenders: Mapping[str, Work], rounds: int = 15) -> dict[str, float]:
    """Median seconds of each, in turns; the first round does not count. One whose first run fails is left out and named."""
    flush = Flush()
    times: dict[str, list[float]] = {}
    for name, work in contenders.items():
        try:
            once(work, flush)
            once(work, flush)
        except Exception as e:
            print(f"  {name} does not run: {type(e).__name__}: {str(e).splitlines()[0][:160]}")
            continue
        times[name] = []
    for _ in range(2 if SMALL else rounds):
        for name, seen in times.items():
            seen.append(once(contenders[name], flush))
    return {name: statistics.median(seen) for name, seen in times.items()}


def graphed(work: Work) -> Work:
    """The work as a CUDA graph: what launches cost is then nobody's figure."""
    if not CUDA:
        return work
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # torch.cuda.graph does not leave its stream when a capture fails
        for _ in range(3):
            work()
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            work()
    graph.replay()
    torch.cuda.synchronize()
    return graph.replay


def relative(result: torch.Tensor, reference: torch.Tensor) -> float:
    """‖result − reference‖ / ‖reference‖ in float64; NaN where anything is."""
    a, b = result.double().cpu(), reference.double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-300))
