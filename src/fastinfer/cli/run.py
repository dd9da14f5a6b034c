# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from fastinfer.cli import inputs as given
from fastinfer.cli.output import Json, console, print_json, progress, table, time_text


def run_command(
    model: given.ModelPath,
    shape: given.Shapes = None,
    input: given.Inputs = None,
    inputs: given.Npz = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")] = None,
    threads: given.Threads = None,
    strict: given.Strict = False,
    precision: given.Precision = "fp32",
    device: given.Device = "cpu",
    seed: given.Seed = 0,
    json: Json = False,
) -> None:
    """Run a model once, on given or random inputs, and describe its outputs."""
    compiled, _ = given.load_model(model, threads, strict, json, precision, device)
    arrays = given.gather(compiled, shape, input, inputs, seed)
    with progress("running", json):
        start = time.perf_counter()
        outputs = compiled.run(arrays)
        seconds = time.perf_counter() - start
    if output is not None:
        np.savez(output, **outputs)
    rows = [{"name": name, **describe(value)} for name, value in outputs.items()]
    if json:
        print_json({"inputs": given.shapes_of(arrays), "first_call_seconds": seconds, "outputs": rows})
        return
    console.print(f"inputs {escape(given.shapes_of(arrays))}; first call {time_text(seconds)}")
    shown = table("output", "type", "shape", ">min", ">mean", ">max")
    for row in rows:
        figures = [f"{row[k]:.6g}" if isinstance(row.get(k), float) else "" for k in ("min", "mean", "max")]
        shown.add_row(escape(row["name"]), row["dtype"], "x".join(map(str, row["shape"])), *figures)
    console.print(shown)
    if output is not None:
        console.print(f"written to {escape(str(output))}")


def describe(value: Any) -> dict[str, Any]:
    """dtype and shape; of numbers also the least, mean and greatest, and how many are not finite."""
    if not isinstance(value, np.ndarray):
        return {"dtype": type(value).__name__, "shape": [len(value)] if isinstance(value, list) else []}
    row: dict[str, Any] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    real = value.dtype.kind in "fiub" and value.size > 0
    if real:
        wide = value.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        row["not_finite"] = int(wide.size - finite.size)
        if finite.size:
            row.update(min=float(finite.min()), mean=float(finite.mean()), max=float(finite.max()))
    return row
