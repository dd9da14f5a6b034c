# SPDX-License-Identifier: Apache-2.0
"""Every row of every kernels.inc on its samples, against this machine's measured peak: `python benchmarks/kernels.py`.

A sample (kernels/<family>/samples.py) is one node. It is compiled for each instruction set from the lowest up, and timed
where that brings other kernels. Time: the median over calls of all its steps. Roof: the longer of operations over the
peak of their type and bytes over the read bandwidth measured for that many bytes; share = roof / time. --cold
empties the caches between calls, and takes memory's bandwidth.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import statistics
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not benchmarks/: this file would hide the folder kernels

from fastinfer import Model, _core  # noqa: E402
from fastinfer.cli.doctor import cpu_name  # noqa: E402
from fastinfer.lower import lower  # noqa: E402
from fastinfer.report import flops_done, kernel_peak  # noqa: E402

LEAST = 3  # calls of a figure
ISAS = ["baseline", "avx2", "avx512", "avx512vnni", "avx512bf16"]


class Row(NamedTuple):
    """A variant: its table, instruction set, the name its steps begin with, and what else they have in their names."""

    family: str
    isa: str
    symbol: str
    numbers: tuple[str, ...]

    def runs_in(self, kernel: str, steps: dict[str, str]) -> bool:
        if kernel == steps.get(self.symbol):
            return True
        name, _, isa = kernel.rpartition("_")
        marked = not self.numbers or self.symbol or any(f"{n}x{n}" in name for n in self.numbers)
        return isa == self.isa and bool(marked) and name.removeprefix("conv_").startswith(self.symbol or self.family)


def rows() -> Iterator[Row]:
    """All rows of the tables of kernel variants (kernels/<family>/kernels*.inc), but for the peak itself."""
    for path in sorted(ROOT.glob("kernels/*/kernels*.inc")):
        if path.parent.name == "peak":
            continue
        for arguments in re.findall(r"^FI_(?:KERNEL|GLOBAL)\((.*?)\)", path.read_text(), re.MULTILINE):
            isa, *rest = [a.strip() for a in arguments.split(",")]
            words = [a.removeprefix("run_") for a in rest if not a.isdigit()]
            yield Row(path.parent.name, isa, words[-1] if words else "", tuple(a for a in rest if a.isdigit()))


def samples(family: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The family's cases, and its rows that run inside steps of another name."""
    module = importlib.import_module(f"kernels.{family}.samples")
    return module.CASES, getattr(module, "STEPS", {})


def families() -> list[str]:
    return sorted(p.parent.name for p in ROOT.glob("kernels/*/samples.py"))


def compiled(case: Any, arrays: list[Any], isa: str, threads: int) -> Model:
    """The node as it stands, for one instruction set."""
    before = _core.active_isa()
    _core.force_isa(isa)
    try:
        return Model(lower(ir.from_proto(case.model(arrays))), threads=threads)
    finally:
        _core.force_isa(before)


@cache
def peak(isa: str, threads: int) -> dict[str, Any]:
    before = _core.active_isa()
    _core.force_isa(isa)
    try:
        # The highest of three: one alone was 406 where the next were 464 GFLOP/s.
        return max((_core.measure_peak(threads) for _ in range(3)), key=lambda p: p["gflops"])
    finally:
        _core.force_isa(before)


@cache
def bandwidth(size: int, threads: int) -> float:
    """Bytes per second; sizes are powers of two."""
    return _core.measure_read(size, threads)


def time_steps(model: Model, feeds: dict[str, Any], seconds: float, cold: bool) -> list[dict[str, Any]]:
    """The steps, ns being the median over calls."""
    junk = np.ones(max(64 << 20, 2 * _core.caches()[2]) // 8) if cold else np.ones(0)
    runs = [model.profile(feeds, runs=1).runs[0]]
    # What is slow (the portable variants of large samples) gets as few calls as a figure needs.
    slow = LEAST * sum(s["ns"] for s in runs[0]) > seconds * 1e9
    spent, each = 0, 1 if cold or slow else 5
    while len(runs) < LEAST or (spent < seconds * 1e9 and len(runs) < 1000):
        if cold:
            junk += 1.0
        runs.append(model.profile(feeds, runs=each).typical)
        spent += sum(s["ns"] for s in runs[-1]) * (each + 1)
    return [{**s, "ns": statistics.median(r[i]["ns"] for r in runs)} for i, s in enumerate(runs[-1])]


def measure(case: Any, isa: str, options: argparse.Namespace, known: set[tuple]) -> dict[str, Any] | None:
    """Figures of a sample on an instruction set, or None where it runs the kernels of a lower one."""
    arrays = case.arrays()
    model = compiled(case, arrays, isa, options.threads)
    feeds = case.feeds(arrays)
    kernels = tuple(s["kernel"] for s in model.explain(feeds).steps)
    if kernels in known:
        return None
    known.add(kernels)
    steps = time_steps(model, feeds, options.seconds, options.cold)
    main = max(steps, key=lambda s: s["ns"])["kernel"]
    ns, size = sum(s["ns"] for s in steps), sum(s["bytes"] for s in steps)
    work = sum(flops_done(s) / kernel_peak(s["kernel"], peak(isa, options.threads)) for s in steps)  # ns
    at = 1 << 30 if options.cold else 1 << max(12, (size - 1).bit_length())
    moving = size / bandwidth(min(at, 256 << 20), options.threads) * 1e9
    return {
        "isa": isa, "kernel": main, "kernels": kernels, "ns": ns, "flops": sum(s["flops"] for s in steps), "bytes": size,
        "share": max(work, moving) / ns, "bound": "operations" if work > moving else "bytes",
    }  # fmt: skip


def line(family: str, name: str, r: dict[str, Any]) -> str:
    rate = f"{r['flops'] / r['ns']:9.1f}" if r["flops"] else " " * 9
    return (
        f"{family:<10} {name:<26} {r['kernel']:<38} {r['ns'] / 1e3:10.1f} {rate} {r['bytes'] / r['ns']:8.1f}"
        f" {r['share']:7.0%}  {r['bound']}"
    )


def arguments(given: list[str]) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [n for n in text.split(",") if n]

    here = ISAS[: ISAS.index(_core.detected_isa()) + 1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=names, default=families(), help="families, by commas")
    parser.add_argument("--isa", type=names, default=here, help=f"instruction sets, by commas: {', '.join(here)}")
    parser.add_argument("--samples", default="", help="only samples whose name contains this")
    parser.add_argument("--threads", type=int, default=_core.usable_cores())
    parser.add_argument("--seconds", type=float, default=0.05, help="per sample and instruction set")
    parser.add_argument("--cold", action="store_true", help="empty the caches before each call")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args(given)
    for what, asked, known in (("family", options.only, families()), ("instruction set", options.isa, here)):
        if unknown := [n for n in asked if n not in known]:
            parser.error(f"no {what} is called {', '.join(unknown)}; here: {', '.join(known)}")
    return options


def main(given: list[str]) -> int:
    options = arguments(given)
    p = peak(options.isa[-1], options.threads)
    found: list[dict[str, Any]] = []
    if not options.json:
        narrow = "".join(f", {p[k]:.0f} {n}" for k, n in (("bf16_gflops", "bf16"), ("int8_gops", "int8")) if k in p)
        print(f"{cpu_name()}, {options.threads} threads, measured: {p['gflops']:.0f} GFLOP/s f32{narrow}, "
              f"{p['read_gbs']:.0f} GB/s; caches {'cold' if options.cold else 'warm'}")  # fmt: skip
        print(f"{'family':<10} {'sample':<26} {'kernel':<38} {'us':>10} {'GFLOP/s':>9} {'GB/s':>8} {'of roof':>8}")
    for family in options.only:
        for name, case in samples(family)[0].items():
            known: set[tuple] = set()
            for isa in options.isa:
                if options.samples not in name or (result := measure(case, isa, options, known)) is None:
                    continue
                found.append({"family": family, "sample": name, **result})
                if not options.json:
                    print(line(family, name, result), flush=True)
    reached = {(r["family"], k) for r in found for k in r["kernels"]}
    left = [
        r for r in rows()
        if r.isa in options.isa and r.family in options.only and not options.samples
        and not any(f in (r.family, "conv") and r.runs_in(k, samples(r.family)[1]) for f, k in reached)
    ]  # fmt: skip
    if options.json:
        print(
            json.dumps({"cpu": cpu_name(), "threads": options.threads, "peak": p, "cold": options.cold, "rows": found})
        )
    for row in left:
        print(f"no sample reaches {row.family}: {row.symbol or row.numbers} on {row.isa}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
