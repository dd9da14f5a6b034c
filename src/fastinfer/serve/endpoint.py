# SPDX-License-Identifier: Apache-2.0
"""One loaded version of a model: its queue, its counters, its sequences, and who still uses it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import numpy as np

from fastinfer.batching import Batcher, Closed, DeadlineExceeded, QueueFull
from fastinfer.batching.batcher import Timing
from fastinfer.model import Model
from fastinfer.serve.errors import Kind, ServeError, as_serve_error
from fastinfer.serve.messages import InferRequest, InferResponse
from fastinfer.serve.observe import Observation
from fastinfer.serve.ports import Feed, Ports
from fastinfer.serve.repository.settings import Settings
from fastinfer.serve.sequences import Sequences
from fastinfer.serve.statistics import Statistics

REJECTED = (QueueFull, DeadlineExceeded)


class _Metered:
    """The model as the batcher sees it: counts its calls."""

    def __init__(self, model: Model, statistics: Statistics, rows: int | None) -> None:
        self._model, self._statistics, self._rows = model, statistics, rows
        self.prepare_many = model.prepare_many

    def batch_group(self, inputs: Any) -> tuple[Hashable | None, int, int]:
        group = self._model.batch_group(inputs)
        inputs.rows = group[1]
        if self._rows is not None and group[1] > self._rows:
            raise ServeError(Kind.INVALID_ARGUMENT, f"{group[1]} rows were given; a request may have {self._rows}")
        return group

    def run_each(self, feeds: Sequence[Any]) -> list[dict[str, Any] | Exception]:
        start = time.perf_counter_ns()
        outcomes = self._model.run_each([dict(f) for f in feeds])  # exact dicts: the model's quick way takes no others
        self._statistics.called(sum(f.rows for f in feeds), time.perf_counter_ns() - start)
        return outcomes


def gpu_of(device: str) -> int | None:
    """The GPU's number; None for the CPU."""
    return None if device == "cpu" else int(device.partition(":")[2] or 0)


class Endpoint:
    """Made and closed on the event loop that runs its requests. max_batch: rows that the model may be given at a time
    where its first extents are the batch; 0 where they are not. memory: bytes of its constants, on its device."""

    def __init__(
        self,
        name: str,
        version: str,
        model: Model,
        settings: Settings,
        ports: Ports,
        *,
        max_batch: int = 0,
        memory: int = 0,
        observe: Callable[[Observation], None] = lambda observation: None,
    ) -> None:
        self._observe = observe
        self.name, self.version, self.settings, self.ports = name, version, settings, ports
        self.max_batch, self.memory = max_batch, memory
        self.batches, self.device = model.batches, model.device
        self.statistics = Statistics()
        batching, limits = settings.batching, settings.limits
        self.sequences = Sequences(settings.sequence, batching.max_queue)
        held = settings.sequence.state
        self._state = [_State(model, given, output, held) for given, output in held.items()]
        self._timeout, self._priority = limits.timeout, limits.priority
        self._batcher = Batcher(
            _Metered(model, self.statistics, limits.rows), max_batch=batching.max_batch, max_delay=batching.max_delay,
            max_queue=batching.max_queue, max_wait=batching.max_wait, calls=batching.calls,
        )  # fmt: skip
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._closed = True

    def statistics_json(self) -> dict[str, Any]:
        """A ModelStatistics."""
        return self.statistics.as_json(self.name, self.version, self.memory, gpu_of(self.device))

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting

    def wait(self) -> float:
        """Seconds until a request that comes now would begin, by what requests have cost lately."""
        return self._batcher.wait()

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return self._leases

    async def open(self) -> None:
        await self._batcher.__aenter__()
        self._closed = False

    def admit(self) -> None:
        """Raises ServeError when too many requests wait already, before anything is done for another one."""
        if self._closed:
            return
        try:
            self._batcher.admit(self._timeout)
        except QueueFull as e:
            raise self._failed(e, 0) from None

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises ServeError. The version is kept until every request that came in is answered."""
        if self._closed:
            raise as_serve_error(Closed("the version is being unloaded"))
        self._leases += 1
        self._unused.clear()
        began = time.perf_counter_ns()
        try:
            return await self._infer(request, began)
        except BaseException as e:
            took = time.perf_counter_ns() - began
            if not isinstance(e, Exception):  # the client has gone
                self._note(request, "cancelled", took, False)
                raise
            # No name for it here, and no cause that is itself: it would hold this frame, and this frame the request.
            raise self._failed(e, took, request) from (None if isinstance(e, ServeError) else e)
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    def _failed(self, error: Exception, ns: int, request: InferRequest | None = None) -> ServeError:
        # Not a local variable of who raises it: an exception whose traceback leads to itself waits for the collector.
        told = as_serve_error(error, request.id if request else "")
        self._note(request, told.kind.name.lower(), ns, isinstance(error, REJECTED))
        return told

    def _note(self, request: InferRequest | None, outcome: str, ns: int, rejected: bool) -> None:
        self.statistics.failed(ns, rejected)
        if request is None:
            self._observe(Observation(self.name, self.version, outcome, ns * 1e-9))
        else:
            self._ended(request, outcome, ns * 1e-9)

    async def _infer(self, request: InferRequest, began: int) -> InferResponse:
        wanted = self.ports.wanted(request)
        feed = self.ports.feed(request.inputs)
        timeout = self._time_left(request.timeout)
        priority = max(-self._priority, min(self._priority, request.priority))
        prepared = time.perf_counter_ns()
        if request.sequence or self._state:
            results, timing = await self._step(request, feed, priority, timeout)
        else:
            results, timing = await self._batcher.submit(feed, priority=priority, timeout=timeout)
        ran = time.perf_counter_ns()
        outputs = self.ports.tensors(results, wanted)
        ended = time.perf_counter_ns()
        waited, computed = timing.waited, timing.seconds
        self.statistics.succeeded(
            timing.rows, ended - began, prepared - began, int(waited * 1e9), int(computed * 1e9), ended - ran
        )
        seconds = (ended - began) * 1e-9
        self._ended(request, "ok", seconds, waited, computed, timing.call_rows)
        return InferResponse(self.name, self.version, outputs, request.id)

    def _ended(
        self, r: InferRequest, outcome: str, took: float,
        queue: float | None = None, compute: float | None = None, rows: int | None = None,
    ) -> None:  # fmt: skip
        self._observe(
            Observation(self.name, self.version, outcome, took, queue, compute, rows, r.id, r.caller, r.trace)
        )

    def _time_left(self, asked: float | None) -> float | None:
        if asked is None:
            return self._timeout
        if not asked >= 0:  # NaN too
            raise ServeError(Kind.INVALID_ARGUMENT, f"a timeout of {asked} s was given; needed: a number from 0 on")
        return asked if self._timeout is None else min(asked, self._timeout)

    async def _step(
        self, request: InferRequest, feed: Feed, priority: int, timeout: float | None
    ) -> tuple[dict[str, Any], Timing]:
        if not request.sequence:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"model '{self.name}' keeps state: a request needs a sequence_id other than 0"
            )
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        async with self.sequences.turn(request, timeout) as sequence:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            if self._state:
                feed.update(sequence.state or {s.spec.name: s.first(feed) for s in self._state})
            results, timing = await self._batcher.submit(feed, priority=priority, timeout=left)
            sequence.state = {s.spec.name: results[s.output] for s in self._state}
        return results, timing

    async def close(self, wait_for_sequences: bool = False) -> None:
        """Takes no more requests, answers those it has, and lets go of the model. Sequences that keep state may go on
        for `limits.drain` seconds before that, if they are waited for."""
        if wait_for_sequences and self._state and not self._closed:
            try:
                await asyncio.wait_for(self.sequences.empty.wait(), self.settings.limits.drain)
            except (asyncio.TimeoutError, TimeoutError):
                pass
        if self._closed:
            return
        self._closed = True
        await self._unused.wait()
        self.sequences.close()
        await self._batcher.__aexit__(None, None, None)
        del self._batcher, self._state


class _State:
    """One input that continues from an output. free: axis → (input, axis) whose extent it shares at first."""

    def __init__(self, model: Model, given: str, output: str, held: Collection[str]) -> None:
        inputs, outputs = ({s.name: s for s in specs} for specs in (model.inputs, model.outputs))
        if given not in inputs or output not in outputs:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"sequence.state: the model lacks the input '{given}' or the output '{output}'"
            )
        self.spec, self.output = inputs[given], output
        if self.spec.dtype != outputs[output].dtype:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"sequence.state: {self.spec} cannot continue from {outputs[output]}"
            )
        others = [
            (d, (s.name, axis)) for s in model.inputs if s.name not in held for axis, d in enumerate(s.shape or ())
        ]
        extents = {d: where for d, where in reversed(others) if isinstance(d, str)}
        self._free = {axis: extents[d] for axis, d in enumerate(self.spec.shape or ()) if d in extents}

    def first(self, feed: Feed) -> np.ndarray:
        """Zeros; extents that other inputs share are theirs, other free ones 1."""
        zeros = self.spec.zeros()
        shape = list(zeros.shape)
        for axis, (name, of) in self._free.items():
            shape[axis] = feed[name].shape[of]
        return np.zeros(shape, zeros.dtype)
