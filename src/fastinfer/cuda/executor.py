# SPDX-License-Identifier: Apache-2.0
"""Runs a DeviceProgram: plans per input shapes in a bounded cache, several callers at once, out of memory as an exception."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from fastinfer import _core
from fastinfer.cuda import report
from fastinfer.cuda.buckets import Batch, Signature
from fastinfer.cuda.checks import InputChecks
from fastinfer.cuda.device import CAPTURES, give_back
from fastinfer.cuda.dtypes import CODES, to_numpy, to_torch
from fastinfer.cuda.dynamic import Dynamic
from fastinfer.cuda.plan import NotPlannable, Plan, make_plan
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.replica import Replica
from fastinfer.cuda.torch_ops import NotStatic
from fastinfer.cuda.tuning import Tuner
from fastinfer.errors import FastinferError, UnsupportedError

Result = TypeVar("Result")
# Callers of one shape beyond this many wait for each other: each replica has an arena of its own.
REPLICAS = 4


class _Plans:
    """The replicas of one signature."""

    def __init__(self, why_not: str = "") -> None:
        self.why_not = why_not  # no plan: the program runs node by node
        self.free: list[Replica] = []
        self.all: list[Replica] = []
        self.coming = 0  # that a caller is making
        self.dropped = False  # nobody finds them any more; the last caller to leave ends them
        self.changed = threading.Condition()


class Executor:
    """The interface of _core.Executor, on a device. plans: signatures whose plans and graphs are kept."""

    def __init__(self, program: DeviceProgram, plans: int = 32, batch: Batch | None = None) -> None:
        """batch: how sizes of it share plans; None: each has its own."""
        self.program, self._most, self._batch = program, plans, batch
        self._tuner, self._checks = Tuner(program.device), InputChecks(program)
        self._cache: OrderedDict[tuple[Any, ...], _Plans] = OrderedDict()
        self._guard = threading.Lock()
        self._process = os.getpid()
        self._making = threading.Lock()  # capture and compilation, one at a time
        self._dynamic: Dynamic | None = None
        self.beside: list[Executor] = []  # of the model's other forms: what they cache goes too where memory is short
        self.threads = 1

    # --------------------------------------------------------------------------------------------------------------- run

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """numpy in, numpy out; lists and None where the model takes sequences and optionals. Raises InputError, FastinferError
        (out of memory)."""
        if not all(map(_plannable, arrays)):
            self._checks.types(arrays)
            return self._by_node(self._node_by_node(), arrays)
        self._checks.indices(arrays)
        signature, rows = self._signature(arrays)
        return self._run(signature, lambda r: r.run_host(arrays, rows), lambda d: self._by_node(d, arrays))

    def run_device(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Tensors on the device in and out; the results may still be under way on the current stream."""
        signature, rows = self._bucket([(CODES.get(t.dtype, 0), tuple(t.shape)) for t in tensors])
        return self._run(signature, lambda r: r.run_device(tensors, rows), lambda d: d.run(list(tensors)))

    def _signature(self, arrays: Sequence[np.ndarray]) -> tuple[Signature, int]:
        """Of the plan that these run by, and their rows in it (0: all)."""
        return self._bucket([(_core.dtype_code(a.dtype), a.shape) for a in arrays])

    def _bucket(self, signature: Signature) -> tuple[Signature, int]:
        return (signature, 0) if self._batch is None else self._batch.widened(signature)

    def _run(
        self, signature: Signature, planned: Callable[[Replica], Result], dynamic: Callable[[Dynamic], Result]
    ) -> Result:
        if os.getpid() != self._process and self.program.device.graphs:
            raise FastinferError(
                "the model was made in the process that this one was forked from, and CUDA does not survive a fork: start "
                "processes by spawn, or make the model here"
            )

        def attempt() -> Result:
            with self._replica(signature) as replica:
                return planned(replica) if replica is not None else dynamic(self._node_by_node())

        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return attempt()
        self._make_room()  # not while the exception is handled: its traceback holds what was half made
        try:
            return attempt()
        except torch.cuda.OutOfMemoryError as e:
            self._make_room()
            raise FastinferError(
                f"the device has not enough memory for inputs of {report.shapes_text(signature)}, with all cached plans "
                f"dropped: {str(e).splitlines()[0]}"
            ) from None

    def _make_room(self) -> None:
        for executor in (*self.beside, self):
            executor.trim()

    def _node_by_node(self) -> Dynamic:
        with self._guard:
            if self._dynamic is None:
                self._dynamic = Dynamic(self.program)
            return self._dynamic

    def _by_node(self, dynamic: Dynamic, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [_on_host(value) for value in dynamic.run(arrays)]

    @contextlib.contextmanager
    def _replica(self, signature: Signature) -> Iterator[Replica | None]:
        plans = self._plans(signature)
        replica = None if plans.why_not else self._taken(plans) or self._added(plans, signature)
        try:
            yield replica
        finally:
            if replica is not None:
                self._returned(plans, replica)

    def _taken(self, plans: _Plans) -> Replica | None:
        """One that is free; None where the caller is to make one, or the program runs node by node."""
        with plans.changed:
            while not plans.free and not plans.why_not and len(plans.all) + plans.coming >= REPLICAS:
                plans.changed.wait()
            if plans.free:
                return plans.free.pop()
            plans.coming += 1
            return None

    def _added(self, plans: _Plans, signature: Signature) -> Replica | None:
        """Of the plans that _taken() gave none of. None: node by node."""
        replica, why_not = None, plans.why_not
        try:
            if not why_not:
                replica = self._make(signature)
        except (NotPlannable, NotStatic, UnsupportedError) as e:
            why_not = str(e)
        finally:
            with plans.changed:
                plans.coming -= 1
                plans.why_not = plans.why_not or why_not
                plans.all += [replica] if replica is not None else []
                plans.changed.notify_all()
            self._bound(signature, plans)
        return replica

    def _returned(self, plans: _Plans, replica: Replica) -> None:
        with plans.changed:
            plans.free.append(replica)
            plans.changed.notify()
            dropped = plans.dropped
        if dropped:
            self._finish()

    def _plans(self, signature: Signature) -> _Plans:
        with self._guard:
            plans = self._cache.setdefault(tuple(signature), _Plans())
            self._cache.move_to_end(tuple(signature))
            return plans

    def _bound(self, signature: Signature, plans: _Plans) -> None:
        """Forgets shapes that nothing came of (wrong ones must not put out others), and the least recently used beyond the bound."""
        with self._guard:
            key = tuple(signature)
            if not (plans.all or plans.why_not or plans.coming) and self._cache.get(key) is plans:
                del self._cache[key]
                plans.dropped = True  # who has just found it may still make one
            oldest = list(self._cache)[: max(0, len(self._cache) - self._most)]
            dropped = [self._cache.pop(key) for key in oldest]
        if dropped:
            self._end(dropped)

    def tune(self, arrays: Sequence[np.ndarray]) -> dict[str, str]:
        """Races the candidates of every kernel that inputs of these shapes run; plans made from then on take the winners."""
        signature, _ = self._signature(arrays)

        def plan() -> Plan:
            made = make_plan(self.program, signature, self._tuner)
            for buffer, array in zip(made.inputs, arrays):
                buffer.zero_()
                (buffer[: len(array)] if array.ndim else buffer).copy_(to_torch(array, copy=False))
            return made

        try:
            with self._making, self.program.device.here():
                return self._tuner.tune(plan)
        except (NotPlannable, NotStatic):
            return {}  # node by node there is nothing to choose
        finally:
            self.forget_plans()

    def _make(self, signature: Signature) -> Replica:
        with self._making, self.program.device.here():
            replica = Replica(make_plan(self.program, signature, self._tuner), self.program.device)
            replica.prepare()
            return replica

    # ----------------------------------------------------------------------------------------------------------- reports

    def plan_of(self, *arrays: np.ndarray) -> Plan:
        """The plan that inputs of these shapes run by. Raises NotPlannable."""
        signature, _ = self._signature(arrays)
        with self._replica(signature) as replica:
            if replica is None:
                raise NotPlannable(self._plans(signature).why_not)
            return replica.plan

    def explain(self, arrays: Sequence[np.ndarray], run_it: bool) -> dict[str, Any]:
        signature, _ = self._signature(arrays)
        with self._replica(signature) as replica:
            if replica is not None:
                return report.explain(self.program, replica.plan)
            dynamic = self._node_by_node()
            if run_it:
                self._by_node(dynamic, arrays)
            return report.explain_dynamic(self.program, dynamic, self._plans(signature).why_not)

    def profile(self, arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
        """Each step by itself, between events (on the CPU: by the clock); without the graph, whose launches cost less."""
        signature, rows = self._signature(arrays)
        with self._replica(signature) as replica:
            if replica is None:
                began = time.perf_counter_ns()
                dynamic = self._node_by_node()
                results = self._by_node(dynamic, arrays)
                step = {**report.explain_dynamic(self.program, dynamic, "")["steps"][0], "node": -1, "op": "",
                        "label": "the whole model", "kernel": "node by node", "start_ns": 0}  # fmt: skip
                return results, [{**step, "ns": time.perf_counter_ns() - began}]
            results = replica.run_host(arrays, rows)
            times = replica.time_steps()
            steps = report.explain(self.program, replica.plan)["steps"]
            return results, [{**s, "start_ns": a, "ns": b} for s, (a, b) in zip(steps, times, strict=True)]

    # ------------------------------------------------------------------------------------------------------------ memory

    def trim(self) -> None:
        """Drops plans that no caller is in, and gives their memory back to the device."""
        self.forget_plans()
        if self.program.device.graphs:
            with CAPTURES:
                give_back()

    def forget_plans(self) -> None:
        with self._guard:
            dropped = list(self._cache.values())
            self._cache.clear()
        self._end(dropped)

    def _end(self, dropped: Sequence[_Plans]) -> None:
        """Outside _guard, which every caller passes: this waits for captures and for the device."""
        for plans in dropped:
            with plans.changed:
                plans.dropped = True
        self._finish()

    def _finish(self) -> None:
        """Before plans go: torch hands out their memory again, and device callers' work may still be in it, on any stream."""
        if self.program.device.graphs:
            with CAPTURES:
                torch.cuda.synchronize(self.program.device.torch)

    @property
    def cached_plans(self) -> int:
        with self._guard:
            return sum(len(p.all) for p in self._cache.values())

    @property
    def cached_bytes(self) -> int:
        with self._guard:
            return sum(r.bytes for p in self._cache.values() for r in p.all)


_PLANNABLE = frozenset(code for dtype, code in CODES.items() if not dtype.is_complex)


def _plannable(value: Any) -> bool:
    return isinstance(value, np.ndarray) and _core.dtype_code(value.dtype) in _PLANNABLE


def _on_host(value: Any) -> Any:
    if isinstance(value, list):
        return [_on_host(v) for v in value]
    return to_numpy(value) if isinstance(value, torch.Tensor) else value
