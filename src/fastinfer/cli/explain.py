# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from rich.markup import escape

from fastinfer.cli import inputs as given
from fastinfer.cli.output import Json, bytes_text, console, flops_text, print_json, progress, table
from fastinfer.report import node_text, shape_text


def explain(
    model: given.ModelPath,
    shape: given.Shapes = None,
    input: given.Inputs = None,
    inputs: given.Npz = None,
    threads: given.Threads = None,
    strict: given.Strict = False,
    precision: given.Precision = "fp32",
    device: given.Device = "cpu",
    seed: given.Seed = 0,
    json: Json = False,
) -> None:
    """List the steps of a model for these shapes: kernel, why not a faster one, work. Where shapes depend on data the
    model is run once."""
    compiled, _ = given.load_model(model, threads, strict, json, precision, device)
    arrays = given.gather(compiled, shape, input, inputs, seed)
    with progress("planning", json):
        explanation = compiled.explain(arrays)
    if json:
        print_json(
            {
                "isa": explanation.isa,
                "device": compiled.device,
                "inputs": given.shapes_of(arrays),
                "arena_bytes": explanation.arena_bytes,
                "steps": explanation.steps,
                "fallback": explanation.fallback,
                "batches": explanation.batches,
            }
        )
        return
    console.print(_table(explanation.steps, f"{model.name}  {given.shapes_of(arrays)}"))
    total = sum(s["flops"] for s in explanation.steps)
    console.print(
        f"{len(explanation.steps)} steps on {given.place_of(compiled)}, {flops_text(total)}FLOP, "
        f"{bytes_text(explanation.arena_bytes)} of intermediates"
    )
    for remark in _remarks(explanation.steps):
        console.print(escape(remark))
    console.print(f"several feeds: {escape(explanation.batches)}")
    for node, why in explanation.fallback.items():
        console.print(f"[yellow]by reference:[/] {escape(node)}: {escape(why)}")


def _table(steps: list[dict[str, Any]], title: str) -> Any:
    shown = table(">", "node", "operator", "kernel", ">parts", "shape", "type", ">FLOP", ">bytes", title=escape(title))
    for i, s in enumerate(steps):
        flops = flops_text(s["flops"]) if s["flops"] else ""
        name, kind = node_text(s["label"])
        shown.add_row(
            str(i), escape("  " * s["depth"] + name), escape(kind), escape(s["kernel"]), str(s["parts"]), shape_text(s),
            s["dtype"] or "", flops, bytes_text(s["bytes"]),
        )  # fmt: skip
    return shown


def _remarks(steps: list[dict[str, Any]]) -> list[str]:
    """Why not a faster kernel, and what was tuned: each text once, with the steps that it is about."""
    where: dict[str, dict[int, int]] = {}
    for i, s in enumerate(steps):
        texts = [f"not faster: {r}" for r in s["refusals"]] + ([f"tuned: {s['tuned']}"] if s.get("tuned") else [])
        for text in texts:
            where.setdefault(text, {}).setdefault(s["node"] if s["depth"] == 0 else -1 - i, i)  # a node has many steps
    return [f"{text}  (step {', '.join(map(str, found.values()))})" for text, found in where.items()]
