# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from fastinfer.cli import inputs as given
from fastinfer.cli import page
from fastinfer.cli.output import Json, console, print_json, progress, table, time_text
from fastinfer.report import node_text, shape_text, with_shares


def profile(
    model: given.ModelPath,
    shape: given.Shapes = None,
    input: given.Inputs = None,
    inputs: given.Npz = None,
    html: Annotated[Path | None, typer.Option(help="Write a page (self-contained) with the steps by time.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome trace (chrome://tracing, ui.perfetto.dev).")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls; the one nearest their median is shown.")] = 20,
    top: Annotated[int, typer.Option(min=1, help="Steps to print.")] = 20,
    threads: given.Threads = None,
    strict: given.Strict = False,
    precision: given.Precision = "fp32",
    device: given.Device = "cpu",
    seed: given.Seed = 0,
    json: Json = False,
) -> None:
    """Time every step of a model; print the slowest, write a page and a trace. All show one call: the one whose total is
    nearest the median."""
    compiled, _ = given.load_model(model, threads, strict, json, precision, device)
    arrays = given.gather(compiled, shape, input, inputs, seed)
    with progress("profiling", json):
        steps = with_shares(compiled.profile(arrays, runs=runs).typical, peak := compiled.measure_peak())
    about = {
        "model": model.name,
        "inputs": given.shapes_of(arrays),
        "isa": compiled.place,
        "device": compiled.device,
        "place": given.place_of(compiled),
        "threads": compiled.threads,
        "runs": runs,
        "peak_gflops": peak["gflops"],
        "peak_read_gbs": peak["read_gbs"],
        "peak_by": peak["by"],
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
            "args": {k: s.get(k) for k in ("kernel", "shape", "flops", "gflops", "share_of_peak", "bytes") if s.get(k)},
        }
        for s in steps
    ]
    return {"traceEvents": names + events, "displayTimeUnit": "ns", "otherData": {k: str(v) for k, v in about.items()}}


def _show(about: dict[str, Any], steps: list[dict[str, Any]], top: int) -> None:
    shown = table(
        ">time", ">share", ">GFLOP/s", ">of peak", ">effective", "node", "operator", "shape", "kernel",
        title=escape(f"{about['model']}  {about['inputs']}"),
    )  # fmt: skip
    ordered = sorted(steps, key=lambda s: -s["ns"])
    for s in ordered[:top]:
        rate = [f"{s['gflops']:.1f}", f"{s['share_of_peak']:.0%}"] if s["gflops"] else ["", ""]
        saves = s["gflops"] and s["effective_gflops"] > 1.001 * s["gflops"]
        name, kind = node_text(s["label"])
        shown.add_row(
            time_text(s["ns"] * 1e-9), f"{s['share']:.1%}", *rate, f"{s['effective_share']:.0%}" if saves else "",
            escape("  " * s["depth"] + name), escape(kind), shape_text(s), escape(s["kernel"]),
        )  # fmt: skip
    console.print(shown)
    rest = f"; the {top} slowest are shown" if len(steps) > top else ""
    console.print(
        f"{len(steps)} steps, {time_text(about['total_ns'] * 1e-9)} per call on {about['place']}, "
        f"measured peak {about['peak_gflops']:.0f} GFLOP/s{rest}"
    )
    if any(s["gflops"] and s["effective_gflops"] > 1.001 * s["gflops"] for s in ordered[:top]):
        console.print(
            "of peak: multiplications really done; effective: those of the plain algorithm, over the same peak"
        )
