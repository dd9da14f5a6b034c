# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from fastinfer import _core
from fastinfer.cli import page
from fastinfer.cli.inputs import Inputs, ModelPath, Npz, Seed, Shapes, Strict, Threads, gather, load_model, shapes_of
from fastinfer.cli.output import Json, console, print_json, progress, table, time_text


def profile(
    model: ModelPath,
    shape: Shapes = None,
    input: Inputs = None,
    inputs: Npz = None,
    html: Annotated[Path | None, typer.Option(help="Write a page (self-contained) with the steps by time.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome trace (chrome://tracing, ui.perfetto.dev).")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls; a step's time is the median over them.")] = 20,
    top: Annotated[int, typer.Option(min=1, help="Steps to print.")] = 20,
    threads: Threads = None,
    strict: Strict = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Time every step of a model; print the slowest, write a page and a trace."""
    compiled, _ = load_model(model, threads, strict, json)
    arrays = gather(compiled, shape, input, inputs, seed)
    with progress("profiling", json):
        steps = with_shares(compiled.profile(arrays, runs=runs).steps, peak := _core.measure_peak(compiled.threads))
    about = {
        "model": model.name,
        "inputs": shapes_of(arrays),
        "isa": _core.active_isa(),
        "threads": compiled.threads,
        "runs": runs,
        "peak_gflops": peak["gflops"],
        "peak_read_gbs": peak["read_gbs"],
        "total_ns": sum(s["ns"] for s in steps if s["depth"] == 0),
    }
    if html is not None:
        html.write_text(page.render(about, steps), encoding="utf-8")
    if trace is not None:
        trace.write_text(json_text.dumps(chrome_trace(about, steps)), encoding="utf-8")
    if json:
        print_json({**about, "steps": steps, "html": html, "trace": trace})
        return
    _show(about, steps, top)
    for path in (html, trace):
        if path is not None:
            console.print(f"written: {escape(str(path))}")


def with_shares(steps: list[dict[str, Any]], peak: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds to each step: share of the total time, GFLOP/s and its share of this machine's measured peak."""
    total = sum(s["ns"] for s in steps if s["depth"] == 0) or 1
    out = []
    for s in steps:
        gflops = s["flops"] / s["ns"] if s["flops"] and s["ns"] else None
        out.append(
            {**s, "share": s["ns"] / total, "gflops": gflops, "share_of_peak": gflops and gflops / peak["gflops"]}
        )
    return out


def chrome_trace(about: dict[str, Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The trace-event format: one complete event per step, one row per depth of sub-programs; microseconds."""
    names = [{"name": "process_name", "ph": "M", "pid": 1, "args": {"name": f"{about['model']} {about['inputs']}"}}]
    events = [
        {
            "name": s["label"] or s["kernel"],
            "cat": s["kernel"],
            "ph": "X",
            "pid": 1,
            "tid": s["depth"],
            "ts": s["start_ns"] / 1e3,
            "dur": s["ns"] / 1e3,
            "args": {k: s.get(k) for k in ("kernel", "flops", "gflops", "share_of_peak", "bytes") if s.get(k)},
        }
        for s in steps
    ]
    return {"traceEvents": names + events, "displayTimeUnit": "ns", "otherData": {k: str(v) for k, v in about.items()}}


def _show(about: dict[str, Any], steps: list[dict[str, Any]], top: int) -> None:
    shown = table(
        ">time",
        ">share",
        ">GFLOP/s",
        ">of peak",
        "node",
        "kernel",
        title=escape(f"{about['model']}  {about['inputs']}"),
    )
    ordered = sorted(steps, key=lambda s: -s["ns"])
    for s in ordered[:top]:
        rate = [f"{s['gflops']:.1f}", f"{s['share_of_peak']:.0%}"] if s["gflops"] else ["", ""]
        shown.add_row(
            time_text(s["ns"] * 1e-9),
            f"{s['share']:.1%}",
            *rate,
            escape("  " * s["depth"] + s["label"]),
            escape(s["kernel"]),
        )
    console.print(shown)
    rest = f"; the {top} slowest are shown" if len(steps) > top else ""
    console.print(
        f"{len(steps)} steps, {time_text(about['total_ns'] * 1e-9)} per call on {about['threads']} threads ({about['isa']}), "
        f"measured peak {about['peak_gflops']:.0f} GFLOP/s{rest}"
    )
