# SPDX-License-Identifier: Apache-2.0
"""Which configuration a kernel runs with: raced on this device, remembered on disk, shipped with the package, or the family's
default, in this order."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fastinfer.cuda import native
from fastinfer.cuda.ahead import compile_ahead
from fastinfer.cuda.context import Family
from fastinfer.cuda.device import Device
from fastinfer.cuda.shipped import shipped
from fastinfer.errors import FastinferError
from fastinfer.tuning_cache import TuningCache

# A configuration is timed so often, each time with its operands out of the L2; the median counts.
RUNS = 7


class Tuner:
    """What plans choose by. A problem's key is its family and all its fields, so a winner holds for every model and shape
    that asks for the same. most: candidates of a problem that a race has. settled: winners by key that no race asks again."""

    def __init__(self, device: Device) -> None:
        self.most: int | None = None
        self.settled: Mapping[str, str] = {}
        self._device = device
        self._winners: dict[str, str] = {}
        self._asked: dict[str, tuple[Family, Any]] = {}
        self._race = -1  # which candidate plans take while a race is on; -1: none is
        self._cache: TuningCache | None = None
        self._looked: set[str] = set()

    def choose(self, family: Family, problem: Any) -> Any:
        key = problem_key(family, problem)
        if self._race >= 0 and key not in self.settled:
            self._asked[key] = family, problem
            candidates = family.configs(problem)[: self.most]
            return candidates[self._race] if self._race < len(candidates) else family.default(problem)
        if key not in self._winners and key not in self._looked:
            self._looked.add(key)
            brought = shipped(self._device.name)
            self._winners.update(self._disk().get([key]) or ({key: brought[key]} if key in brought else {}))
        text = self.settled.get(key) or self._winners.get(key)
        config = None if text is None else _named(family, problem, text)
        return family.default(problem) if config is None else config

    def _disk(self) -> TuningCache:
        if self._cache is None:
            self._cache = TuningCache("", device=about(self._device))
        return self._cache

    # -------------------------------------------------------------------------------------------------------------- race

    def tune(self, plans: Callable[[], Any]) -> dict[str, str]:
        """Races every candidate of every problem that the plan of `plans()` has; keeps and gives the winners. Each round
        makes a plan whose kernels take their k-th candidate, and times its steps. Results move within the precision."""
        best: dict[str, tuple[float, str]] = {}
        try:
            for candidate in self._rounds(plans):
                self._race = candidate
                for step, seconds in self._timed(plans()):
                    key = _key_of(step)
                    if seconds < best.get(key, (float("inf"), ""))[0]:
                        best[key] = seconds, config_text(step.static["config"])
        finally:
            self._race = -1
        winners = {key: text for key, (_, text) in best.items()}
        self._winners.update(winners)
        self._disk().put(winners)
        return winners

    def problems(self, plans: Callable[[], Any]) -> dict[str, tuple[Family, Any]]:
        """What the plan of `plans()` would have raced."""
        self._race, self._asked = 0, {}
        try:
            plans()
        finally:
            self._race = -1
        return self._asked

    def _rounds(self, plans: Callable[[], Any]) -> Iterator[int]:
        asked = self.problems(plans).values()
        yield from range(max((len(f.configs(p)[: self.most]) for f, p in asked), default=0))

    def _timed(self, plan: Any) -> Iterator[tuple[Any, float]]:
        """The plan's steps that can be tuned, with their seconds; those whose configuration this device refuses are left
        out. The steps between run too, so that every step reads what it will read."""
        compile_ahead(plan.steps)
        for i, step in enumerate(plan.steps):
            launch = functools.partial(plan.launch, slice(i, i + 1))
            if "config" not in step.static or _key_of(step) in self.settled:
                launch()
                continue
            try:
                launch()
                yield step, self._median(launch)
            except Exception as e:  # too many resources, a compiler's refusal: triton has many types for it
                if isinstance(e, FastinferError | torch.cuda.OutOfMemoryError):
                    raise
                continue

    def _median(self, launch: Callable[[], None]) -> float:
        if not self._device.graphs:
            began = time.perf_counter()
            launch()
            return time.perf_counter() - began
        flush = torch.empty(4 * self._device.l2, dtype=torch.uint8, device=self._device.torch)
        times = []
        for _ in range(RUNS):
            flush.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            launch()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3)
        return sorted(times)[RUNS // 2]


def problem_key(family: Family, problem: Any) -> str:
    name = getattr(family, "__name__", type(family).__name__).rsplit(".", 1)[-1]
    return f"{name} {json.dumps(dataclasses.asdict(problem), default=str, sort_keys=True)}"


def _key_of(step: Any) -> str:
    """Of a step that was chosen for a problem."""
    return problem_key(sys.modules[step.run.__module__], step.static["problem"])


def config_text(config: Any) -> str:
    return json.dumps(dataclasses.asdict(config), default=str, sort_keys=True)


def _named(family: Family, problem: Any, text: str) -> Any:
    """The candidate that a file means; None for one that this build does not offer (any more)."""
    return next((c for c in family.configs(problem) if config_text(c) == text), None)


@functools.lru_cache(maxsize=4)
def about(device: Device) -> Mapping[str, str]:
    """What winners depend on: the chip, its driver and compilers, and our kernels: Triton's sources, and
    what was built of the CUDA C++ ones."""
    import triton

    kernels = [*sorted(Path(__file__).parent.glob("kernels/*.py")), *native.built()]
    build = hashlib.sha256(b"".join(p.read_bytes() for p in kernels)).hexdigest()[:16]
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)() if device.graphs else 0
    return {
        "machine": device.name, "driver": str(driver), "build": build, "torch": torch.__version__,
        "triton": triton.__version__,
    }  # fmt: skip
