# SPDX-License-Identifier: Apache-2.0
"""What explain() and profile() give back: plain data, and a table when printed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Explanation:
    """steps: dicts with label, kernel, parts, flops, refusals. fallback: node → why it has no native operator."""

    plan: dict[str, Any]
    fallback: dict[str, str]
    isa: str
    steps: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.plan["steps"]

    @property
    def arena_bytes(self) -> int:
        """Bytes of intermediate memory that the planned part needs."""
        return self.plan["arena_bytes"]

    def __str__(self) -> str:
        lines = [f"{len(self.steps)} steps on {self.isa}, {self.arena_bytes / 1e6:.2f} MB of intermediates"]
        for i, s in enumerate(self.steps):
            flops = f"{s['flops'] / 1e6:10.3f} MFLOP" if s["flops"] else " " * 16
            lines.append(f"{i:4} {'  ' * s['depth']}{s['kernel']:<32} x{s['parts']:<2} {flops}  {s['label']}")
            lines += [f"       not faster: {r}" for r in s["refusals"]]
        if not self.plan["finished"]:
            lines.append("     ... the rest is planned when run-time values are known: call explain(inputs)")
        lines += [f"reference fallback: {node}: {why}" for node, why in self.fallback.items()]
        return "\n".join(lines)


@dataclass
class Profile:
    """runs: one list of step dicts (label, kernel, start_ns, ns, flops, depth) per call."""

    runs: list[list[dict[str, Any]]]
    threads: int

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps of the last call, ``ns`` replaced by the median over all calls that had the same steps."""
        last = self.runs[-1]
        same = [r for r in self.runs if len(r) == len(last)]
        return [{**s, "ns": statistics.median(r[i]["ns"] for r in same)} for i, s in enumerate(last)]

    def __str__(self) -> str:
        steps = [s for s in self.steps if s["depth"] == 0]
        total = sum(s["ns"] for s in steps) or 1
        lines = [f"{len(steps)} steps, {total / 1e6:.3f} ms on {self.threads} threads"]
        for s in sorted(steps, key=lambda s: -s["ns"]):
            rate = f"{s['flops'] / s['ns']:8.1f} GFLOP/s" if s["flops"] else ""
            lines.append(
                f"{s['ns'] / 1e3:10.1f} us {100 * s['ns'] / total:5.1f} %  {s['kernel']:<32} {s['label']}  {rate}"
            )
        return "\n".join(lines)
