# SPDX-License-Identifier: Apache-2.0
"""One plan with its memory and its CUDA graph: runs one call at a time."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastinfer.cuda.ahead import compile_ahead
from fastinfer.cuda.device import CAPTURES, Device
from fastinfer.cuda.dtypes import to_numpy, to_torch
from fastinfer.cuda.plan import Plan
from fastinfer.cuda.torch_ops import NotStatic


class Replica:
    """Inputs are copied into the plan's buffers, the graph is replayed, outputs are copied out, all on one stream. numpy
    callers go through pinned memory, so that copies run at the bus's speed and beside other replicas' kernels; torch callers'
    tensors stay on the device, and nothing waits: results are ordered behind the work on the caller's current stream."""

    def __init__(self, plan: Plan, device: Device) -> None:
        self.plan, self._device = plan, device
        self._graph: Any = None
        self._stream: Any = torch.cuda.Stream(device.torch) if device.graphs else None
        self._pinned_in: list[torch.Tensor] = []
        self._pinned_out: list[torch.Tensor] = []
        self._done: Any = None

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in self.plan.kept)

    def prepare(self) -> None:
        """Compiles what is to be compiled and captures the graph. Raises NotStatic."""
        for buffer in self.plan.inputs:
            buffer.zero_()  # rows of a bucket that no caller fills
        if self._stream is None:
            self.plan.launch()
            return
        with CAPTURES:
            self._graph = _captured(self.plan, self._device.torch)

    def run_host(self, arrays: Sequence[np.ndarray], rows: int = 0) -> list[np.ndarray]:
        """numpy in, numpy out; waits. rows: of the buffers, where these are a bucket's; 0: all."""
        part = slice(rows or None)
        if self._stream is None:
            for buffer, array in zip(self.plan.inputs, arrays):
                _part(buffer, part).copy_(to_torch(array, copy=False))
            self.plan.launch()
            return [to_numpy(_part(t, part)).copy() for t in self.plan.outputs]
        if not self._pinned_in:
            self._pinned_in = [torch.empty_like(t, device="cpu", pin_memory=True) for t in self.plan.inputs]
            self._pinned_out = [torch.empty_like(t, device="cpu", pin_memory=True) for t in self.plan.outputs]
        if self._done is not None:
            self._stream.wait_event(self._done)  # a device caller's call may still read the buffers
        for pinned, array in zip(self._pinned_in, arrays):
            _part(pinned, part).copy_(to_torch(array, copy=False))
        try:
            with torch.cuda.stream(self._stream):
                for buffer, pinned in zip(self.plan.inputs, self._pinned_in):
                    _part(buffer, part).copy_(_part(pinned, part), non_blocking=True)
                self._graph.replay()
                for pinned, buffer in zip(self._pinned_out, self.plan.outputs):
                    _part(pinned, part).copy_(_part(buffer, part), non_blocking=True)
        finally:
            self._stream.synchronize()  # of an interrupted call too: the next one fills the same pinned memory
        return [to_numpy(_part(t, part)).copy() for t in self._pinned_out]

    def time_steps(self) -> list[tuple[int, int]]:
        """(begin, duration) of each step in ns, on the inputs of the last run."""
        plan = self.plan
        if self._stream is None:
            marks = [time.perf_counter_ns()]
            for i in range(len(plan.steps)):
                plan.launch(slice(i, i + 1))
                marks.append(time.perf_counter_ns())
        else:
            with torch.cuda.stream(self._stream):
                events = [torch.cuda.Event(enable_timing=True) for _ in range(len(plan.steps) + 1)]
                events[0].record()
                for i in range(len(plan.steps)):
                    plan.launch(slice(i, i + 1))
                    events[i + 1].record()
                self._stream.synchronize()
                marks = [round(1e6 * events[0].elapsed_time(e)) for e in events]
        return [(a - marks[0], b - a) for a, b in zip(marks, marks[1:])]

    def run_device(self, tensors: Sequence[torch.Tensor], rows: int = 0) -> list[torch.Tensor]:
        """Tensors on the device in and out; waits for nothing. rows: as for run_host."""
        part = slice(rows or None)
        if self._stream is None:
            for buffer, tensor in zip(self.plan.inputs, tensors):
                _part(buffer, part).copy_(tensor)
            self.plan.launch()
            return [_part(t, part).clone() for t in self.plan.outputs]
        current = torch.cuda.current_stream(self._device.torch)
        if self._done is not None:
            current.wait_event(self._done)  # the last caller's stream may be another one
        try:
            for buffer, tensor in zip(self.plan.inputs, tensors):
                _part(buffer, part).copy_(tensor, non_blocking=True)
            self._graph.replay()
            return [_part(t, part).clone() for t in self.plan.outputs]
        finally:
            self._done = current.record_event()  # also where there is no memory for the results: the graph is under way


@functools.lru_cache(maxsize=16)
def _capture_stream(device: torch.device) -> Any:
    """One for all captures: torch deals out 32 streams of a priority in turns, and what anybody launches on a stream that is
    captured is captured too. Nobody else here asks for this priority."""
    return torch.cuda.Stream(device, priority=-1)


def _captured(plan: Plan, device: torch.device) -> Any:
    """The plan's launches as a graph. Raises NotStatic where a step cannot be captured."""
    stream, graph, refused = _capture_stream(device), torch.cuda.CUDAGraph(), None
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # torch.cuda.graph does not leave its stream when a capture fails
        compile_ahead(plan.steps)
        plan.launch()  # kernels are loaded before the capture
        stream.synchronize()
        _forget_workspaces()
        try:  # other threads go on allocating meanwhile, which the mode "global" would forbid them
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                try:
                    plan.launch()
                except NotStatic as e:
                    refused = e
        except RuntimeError:
            if refused is None:
                raise
        finally:
            _forget_workspaces()
    if refused is not None:
        raise refused
    return graph


def _forget_workspaces() -> None:
    """cuBLAS keeps a workspace per thread and stream. Within a capture it takes a new one, out of the graph's own memory:
    graphs that run beside each other must not share it."""
    getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()


def _part(tensor: torch.Tensor, part: slice) -> torch.Tensor:
    return tensor[part] if part.stop else tensor
