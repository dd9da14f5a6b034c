# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from rich.markup import escape

from fastinfer.cli.inputs import Inputs, ModelPath, Npz, Seed, Shapes, Strict, Threads, gather, load_model, shapes_of
from fastinfer.cli.output import Json, bytes_text, console, flops_text, print_json, progress, table


def explain(
    model: ModelPath,
    shape: Shapes = None,
    input: Inputs = None,
    inputs: Npz = None,
    threads: Threads = None,
    strict: Strict = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """List the steps of a model for these shapes: kernel, why not a faster one, work. Where shapes depend on data the
    model is run once."""
    compiled, _ = load_model(model, threads, strict, json)
    arrays = gather(compiled, shape, input, inputs, seed)
    with progress("planning", json):
        explanation = compiled.explain(arrays)
    if json:
        print_json(
            {
                "isa": explanation.isa,
                "inputs": shapes_of(arrays),
                "arena_bytes": explanation.arena_bytes,
                "steps": explanation.steps,
                "fallback": explanation.fallback,
            }
        )
        return
    console.print(_table(explanation.steps, f"{model.name}  {shapes_of(arrays)}"))
    total = sum(s["flops"] for s in explanation.steps)
    console.print(
        f"{len(explanation.steps)} steps on {explanation.isa}, {compiled.threads} threads, {flops_text(total)}FLOP, "
        f"{bytes_text(explanation.arena_bytes)} of intermediates"
    )
    for node, why in explanation.fallback.items():
        console.print(f"[yellow]by reference:[/] {escape(node)}: {escape(why)}")


def _table(steps: list[dict[str, Any]], title: str) -> Any:
    """One row per step; a refusal stands once, below the first step of its node."""
    shown = table(">", "node", "kernel", ">parts", "shape", ">FLOP", ">bytes", title=escape(title))
    told: set[tuple] = set()
    for i, s in enumerate(steps):
        extents = "x".join(map(str, s.get("out_shape") or []))
        flops = flops_text(s["flops"]) if s["flops"] else ""
        size = bytes_text(s["bytes"]) if s.get("bytes") else ""
        label = escape("  " * s.get("depth", 0) + s["label"])
        shown.add_row(str(i), label, escape(s["kernel"]), str(s["parts"]), extents, flops, size)
        for reason in s["refusals"]:
            if (s["node"], s.get("depth"), reason) not in told:
                told.add((s["node"], s.get("depth"), reason))
                shown.add_row("", "", f"[dim]not faster: {escape(reason)}[/]")
    return shown
