# SPDX-License-Identifier: Apache-2.0
"""What explain() and profile() give back: plain data, and a table when printed."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_WINOGRAD = re.compile(r"winograd_[a-z0-9]+_(\d+)x\1(?:_|$)")
_NAMED_LAST = re.compile(r"node '(.*)' \((?:[\w.]+\.)?\w+\)$", re.DOTALL)


@dataclass
class Explanation:
    """steps: dicts with

    - op, label: the operator, and its node in words;
    - also: names of the model's other nodes that became part of this step (only where there are any);
    - kernel, parts: what runs, and into how many parts it is cut;
    - refusals: why not a faster kernel; tuned: what tuning chose (only where it did);
    - shape, dtype: of the output that the step fills (of a step that fills scratch: of its node's output);
    - bytes: of inputs, weights and outputs that it reads and writes, each once; weight_bytes: those of constants;
    - flops: multiplications and additions of the plain algorithm (see :func:`flops_done`);
    - depth: 0 for the model, 1 for a graph inside one of its nodes, ...

    fallback: node → why it has no native operator. batches: how several feeds share calls.
    """

    plan: dict[str, Any]
    fallback: dict[str, str]
    isa: str
    batches: str = ""
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
            what = f"{s['kernel']:<32} x{s['parts']:<2} {shape_text(s):<18} {flops} {s['bytes'] / 1e3:10.1f} kB"
            also = f" with {', '.join(s['also'])}" if s.get("also") else ""
            lines.append(f"{i:4} {'  ' * s['depth']}{what}  {s['label']}{also}")
            lines += [f"       not faster: {r}" for r in s["refusals"]]
            lines += [f"       tuned: {s['tuned']}"] if s.get("tuned") else []
        if not self.plan["finished"]:
            lines.append("     ... the rest is planned when run-time values are known: call explain(inputs)")
        lines += [f"reference fallback: {node}: {why}" for node, why in self.fallback.items()]
        lines += [f"several feeds: {self.batches}"] if self.batches else []
        return "\n".join(lines)


@dataclass
class Profile:
    """runs: one list of step dicts per call: those of :class:`Explanation`, with start_ns and ns. place: a device other than
    the CPU."""

    runs: list[list[dict[str, Any]]]
    threads: int
    place: str = ""

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps of the last call, ``ns`` replaced by the median over all calls that had the same steps."""
        last = self.runs[-1]
        same = [r for r in self.runs if len(r) == len(last)]
        return [{**s, "ns": statistics.median(r[i]["ns"] for r in same)} for i, s in enumerate(last)]

    @property
    def typical(self) -> list[dict[str, Any]]:
        """The one call whose total is nearest the median total: its starts and durations belong together. Each step
        also has ``median_ns``, over all calls that had the same steps."""
        totals = [sum(s["ns"] for s in r if s["depth"] == 0) for r in self.runs]
        middle = statistics.median(totals)
        chosen = self.runs[min(range(len(totals)), key=lambda i: abs(totals[i] - middle))]
        same = [r for r in self.runs if len(r) == len(chosen)]
        return [{**s, "median_ns": statistics.median(r[i]["ns"] for r in same)} for i, s in enumerate(chosen)]

    def __str__(self) -> str:
        steps = [s for s in self.steps if s["depth"] == 0]
        total = sum(s["ns"] for s in steps) or 1
        lines = [f"{len(steps)} steps, {total / 1e6:.3f} ms on {self.place or f'{self.threads} threads'}"]
        for s in sorted(steps, key=lambda s: -s["ns"]):
            rate = f"{s['flops'] / s['ns']:8.1f} GFLOP/s" if s["flops"] else ""
            lines.append(
                f"{s['ns'] / 1e3:10.1f} us {100 * s['ns'] / total:5.1f} %  {s['kernel']:<32} {s['label']}  {rate}"
            )
        return "\n".join(lines)


def shape_text(step: Mapping[str, Any]) -> str:
    """1x64x56x56; 'scalar' for no extents, '' where the shape is not known."""
    shape = step.get("shape")
    return "" if shape is None else "x".join(map(str, shape)) or "scalar"


def node_text(label: str) -> tuple[str, str]:
    """The label "node 'NAME' (domain.Op)" as (NAME, "domain.Op"); else (label, "")."""
    if not _NAMED_LAST.match(label):
        return label, ""
    name, _, kind = label.removeprefix("node '").rpartition("' (")
    return name, kind.removesuffix(")")


def flops_done(step: Mapping[str, Any]) -> float:
    """Multiplications and additions that the kernel's products really do. They are fewer than ``flops`` for Winograd:
    F(m x m, 3x3) takes (m + 2)² products per m x m outputs and channel pair instead of 9 m²; its transforms, additions
    for the most part, are not counted."""
    winograd = _WINOGRAD.match(step["kernel"])
    if not winograd:
        return step["flops"]
    m = int(winograd.group(1))
    return step["flops"] * (m + 2) ** 2 / (9 * m * m)


def kernel_peak(kernel: str, peak: Mapping[str, Any]) -> float:
    """Of this machine's measured peaks (``_core.measure_peak``) the one that bounds a kernel, in Gop/s, by the operand
    types in its name: ``bf16`` and ``u8s8`` have their own where they were measured, everything else float32's."""
    for mark, key in (("bf16", "bf16_gflops"), ("u8s8", "int8_gops")):
        if mark in kernel.rpartition("_")[0] and peak.get(key):
            return peak[key]
    return peak["gflops"]


def with_shares(steps: list[dict[str, Any]], peak: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Adds to each step its rates, None where it has no flops or no time:

    - share: of the total time of the steps at depth 0;
    - gflops, share_of_peak: of the operations really done (:func:`flops_done`), and against this machine's peak;
    - effective_gflops, effective_share: of the plain algorithm's operations; above 1 is possible where an algorithm
      saves some;
    - gbs: GB/s of the bytes it reads and writes; caches let it exceed DRAM's.
    """
    total = sum(s["ns"] for s in steps if s["depth"] == 0) or 1
    out = []
    for s in steps:
        work, ns, roof = s["flops"], s["ns"], kernel_peak(s["kernel"], peak)
        done = flops_done(s) / ns if work and ns else None
        effective = work / ns if work and ns else None
        rates = {"gflops": done, "share_of_peak": done and done / roof, "effective_gflops": effective,
                 "effective_share": effective and effective / roof}  # fmt: skip
        gbs = s["bytes"] / ns if s.get("bytes") and ns else None
        out.append({**s, "flops_done": flops_done(s), "share": s["ns"] / total, **rates, "gbs": gbs})
    return out
