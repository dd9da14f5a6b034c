# SPDX-License-Identifier: Apache-2.0
"""tune=True: races what a plan may choose between, in the model's own sequence and with cold caches.

A plan's *choices* (``PlanContext::choose``) each have a problem (text that holds all that the choice depends on) and the
labels of their candidates. All choices of one kind take their i-th candidate at once and the whole model runs, so each
layer finds the caches as the layers before it leave them; the caches are emptied before each timed call, as weights come
from memory in a model that is not alone. The winners are then raced, warm and as a whole, against the defaults, and
dropped unless they win: layers that are faster alone can make a sequence slower.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np

from fastinfer import _core
from fastinfer.tuning_cache import TuningCache

ROUNDS = 5  # timed calls per candidate
CONFIRM = 8  # turns of the race between winners and defaults, of three calls each
LEAST_GAIN = 0.005  # of a whole call
# A winner must be this much faster than the default, relative and in ns: less is noise.
MARGIN, LEAST_NS = 0.04, 1000
# An algorithm is settled before how it is cut. Problems begin with their kind.
DEFAULT = "default"
KINDS = ("convolution", "split", "parts")


def tune(
    program: _core.Program, executor: _core.Executor, arrays: Sequence[Any], known: dict[str, str]
) -> dict[str, str]:
    """Problem → label of what is best for these inputs, `known` choices included. The program is left with them."""
    cache = TuningCache(program.isa)
    table: dict[str, str] = dict(known)
    raced: set[str] = set()
    for kind in KINDS:
        found = _choices(program, executor, arrays, table, kind)
        table.update({p: label for p, label in cache.get(found).items() if label in found[p].labels and p not in table})
        new = {p: choice for p, choice in found.items() if p not in table and len(choice.labels) > 1}
        if not new:
            continue
        if not _quiet(executor.threads):
            warnings.warn("other programs use the cores: this model is not tuned", RuntimeWarning, stacklevel=3)
            break
        winners = _race(program, executor, arrays, table, new)
        changed = {p for p, label in winners.items() if label != DEFAULT}
        if changed and not (
            _confirmed(program, executor, arrays, {**table, **winners}, changed) and _quiet(executor.threads)
        ):
            winners = dict.fromkeys(winners, DEFAULT)
        table.update(winners)
        raced.update(winners)
    if raced:
        cache.put({p: table[p] for p in raced})
    _use(program, executor, table)
    return table


class _Choice:
    """labels: "default", what the planner does unasked, and the candidates that differ from it."""

    def __init__(self, candidates: list[str], chosen: int) -> None:
        self.labels = [DEFAULT, *(c for i, c in enumerate(candidates) if i != chosen)]
        self.nodes: set[int] = set()


def _quiet(threads: int) -> bool:
    """Whether `threads` cores are free, within two seconds: on a busy machine one core seems best for everything."""
    for _ in range(20):
        one, all_of_them = _core.measure_read(32 << 10, 1), _core.measure_read(threads << 15, threads)
        if all_of_them > 0.75 * threads * one:
            return True
        time.sleep(0.1)
    return False


def _use(program: _core.Program, executor: _core.Executor, table: dict[str, str]) -> None:
    program.set_tuning(table)
    executor.forget_plans()


def _choices(
    program: _core.Program, executor: _core.Executor, arrays: Sequence[Any], table: dict[str, str], kind: str
) -> dict[str, _Choice]:
    """The choices of a kind that a plan has under `table`; same problems are one."""
    _use(program, executor, table)
    plan = executor.explain(arrays, True)
    parts: dict[int, int] = {}
    for s in plan["steps"]:
        if s["depth"] == 0:
            parts[s["node"]] = max(parts.get(s["node"], 0), s["parts"])
    found: dict[str, _Choice] = {}
    for c in plan["choices"]:
        if c["problem"].split(" ", 1)[0] != kind or c["node"] not in parts:
            continue
        usual = c["chosen"] if kind != "parts" else min(parts[c["node"]], 2) - 1  # "one part", "all threads"
        found.setdefault(c["problem"], _Choice(c["candidates"], usual)).nodes.add(c["node"])
    return found


def _race(program, executor, arrays, table: dict[str, str], new: dict[str, _Choice]) -> dict[str, str]:
    times: dict[str, dict[str, list[float]]] = {p: {label: [] for label in c.labels} for p, c in new.items()}
    width = max(len(c.labels) for c in new.values())
    junk = np.zeros(max(32 << 20, 2 * _core.caches()[2]) // 8)
    for turn in range(ROUNDS):
        for i in range(width) if turn % 2 == 0 else reversed(range(width)):
            labels = {p: c.labels[i % len(c.labels)] for p, c in new.items()}
            _use(program, executor, {**table, **labels})
            executor.run(arrays)  # plans, transforms weights
            junk += 1.0
            per_node = _per_node(executor.profile(arrays)[1])
            for p, c in new.items():
                times[p][labels[p]].append(sum(per_node.get(n, 0) for n in c.nodes))
    return {p: _winner(times[p], len(c.nodes)) for p, c in new.items()}


def _per_node(steps: Iterable[dict[str, Any]]) -> dict[int, int]:
    out: dict[int, int] = {}
    for s in steps:
        if s["depth"] == 0:
            out[s["node"]] = out.get(s["node"], 0) + s["ns"]
    return out


def _winner(times: dict[str, list[float]], nodes: int) -> str:
    """The candidate with the least median, if it beats the default clearly: also its slowest calls do, all but one."""
    default = times[DEFAULT]
    best = min(times, key=lambda label: median(times[label]))
    gain = median(default) - median(times[best])
    if gain < max(MARGIN * median(default), LEAST_NS * nodes) or sorted(times[best])[-2] > median(default):
        return DEFAULT
    return best


def _confirmed(program, executor, arrays, table: dict[str, str], changed: set[str]) -> bool:
    """Whether a whole call under `table` is faster than one with the defaults in place of what changed."""
    sides = [table, {**table, **dict.fromkeys(changed, DEFAULT)}]
    taken: list[list[float]] = [[], []]
    for turn in range(CONFIRM):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            _use(program, executor, sides[side])
            executor.run(arrays)
            for _ in range(3):
                start = time.perf_counter()
                executor.run(arrays)
                taken[side].append(time.perf_counter() - start)
    return all(np.percentile(taken[0], q) < (1 - LEAST_GAIN) * np.percentile(taken[1], q) for q in (25, 50))
