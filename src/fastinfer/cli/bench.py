# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from fastinfer import bench as engine
from fastinfer.cli import inputs as given
from fastinfer.cli.output import Differ, Json, console, print_json, progress, table
from fastinfer.peers import PEERS


def bench(
    model: given.ModelPath,
    against: Annotated[str, typer.Option(help=f"Peers, by commas: {', '.join(PEERS)}; '' for none.")] = "onnxruntime",
    shape: given.Shapes = None,
    input: given.Inputs = None,
    inputs: given.Npz = None,
    threads: given.Threads = None,
    seconds: Annotated[float, typer.Option(help="Time for all runtimes together.", min=0.0)] = 5.0,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help=f"Outputs agree when max|a-b| <= TOLERANCE * max|b|; default {engine.TOLERANCE:.0e}, for models of 16-bit "
            f"floats {engine.HALF_TOLERANCE:.0e}, for --precision bf16 and int8 {engine.BF16_TOLERANCE}, tf32 and f16 0.03, fp8 1.",
        ),
    ] = None,
    strict: given.Strict = False,
    precision: given.Precision = "fp32",
    device: given.Device = "cpu",
    seed: given.Seed = 0,
    json: Json = False,
) -> None:
    """Time a model against other runtimes, interleaved, at equal precision; no figure for outputs that disagree.

    The first peer that runs is the reference for the outputs. Exit code 6 when ours disagree with it.
    """
    names = [name.strip() for name in against.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise typer.BadParameter(f"no peer is called '{name}'; known: {', '.join(PEERS)}", param_hint="--against")
    compiled, exported = given.load_model(model, threads, strict, json, precision, device)
    arrays = given.gather(compiled, shape, input, inputs, seed)
    onnx = _as_onnx(exported) if exported else None if model.suffix == ".safetensors" else model
    with progress("timing", json) as advance:
        result = engine.compare(
            compiled,
            arrays,
            against=names,
            onnx=onnx,
            module=exported and exported.module(),
            seconds=seconds,
            tolerance=tolerance,
            on_progress=advance,
            precision=precision,
        )
    if json:
        print_json({"model": model, "inputs": given.shapes_of(arrays), **result.as_dict()})
    else:
        show(result, f"{model.name}  {given.shapes_of(arrays)}")
    if result.ours.refused:
        raise Differ(result.ours.refused)


def _as_onnx(exported: Any) -> bytes:
    import torch

    return torch.onnx.export(exported, dynamo=True, verbose=False).model_proto.SerializeToString()


def show(result: engine.Comparison, title: str) -> None:
    """The table of a comparison."""
    shown = table(
        "runtime", ">p50 ms", ">p90", ">p99", ">peer / ours", ">GFLOP/s", ">of peak", ">max error", title=escape(title)
    )
    for row in result.rows():
        error = "" if row["max_error"] is None else f"{row['max_error']:.1e}"
        if "p50_ms" not in row:
            shown.add_row(row["runtime"], f"[yellow]{escape(row['refused'])}[/]", *[""] * 5, error)
            continue
        ratio = f"{row['ratio']:.2f}" if row["runtime"] != engine.OURS and "ratio" in row else ""
        rate = [f"{row['gflops']:.1f}", f"{row['share_of_peak']:.0%}"] if "gflops" in row else ["", ""]
        times = [f"{row[k]:.3f}" for k in ("p50_ms", "p90_ms", "p99_ms")]
        shown.add_row(row["runtime"], *times, ratio, *rate, error)
    console.print(shown)
    for timing in result.timings:
        if timing.note:
            console.print(f"{timing.name}: max error {timing.note}")
    checked = (
        f"outputs agree with {result.reference} within {result.tolerance:.0e} of max"
        if result.reference
        else "outputs not checked: no peer ran"
    )
    place = (
        f"{result.threads} threads"
        if result.device == "cpu"
        else f"{result.place}; on the CPU {result.threads} threads"
    )
    console.print(f"{escape(place)}, {result.peak['gflops']:.0f} GFLOP/s measured peak; {checked}")
