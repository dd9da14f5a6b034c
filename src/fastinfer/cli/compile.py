# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fastinfer.cli.inputs import Device, ModelPath, Precision, Strict, Threads, load_model
from fastinfer.cli.output import Json, bytes_text, console, print_json, progress, time_text


def compile_command(
    model: ModelPath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the program goes; default: MODEL.safetensors.")
    ] = None,
    threads: Threads = None,
    strict: Strict = False,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Compile a model and save it as one file that loads without torch and onnx."""
    start = time.perf_counter()
    compiled, _ = load_model(model, threads, strict, json, precision, device)
    seconds = time.perf_counter() - start
    output = output or model.with_suffix(".safetensors")
    if output.exists() and output.samefile(model):
        raise typer.BadParameter(f"'{output}' is the model itself", param_hint="--output")
    with progress(f"writing {output.name}", json):
        compiled.save(output)
    size = output.stat().st_size
    if json:
        print_json(
            {
                "output": output,
                "bytes": size,
                "seconds": seconds,
                "inputs": list(map(str, compiled.inputs)),
                "outputs": list(map(str, compiled.outputs)),
                "fallback": compiled.fallback_nodes,
            }
        )
        return
    console.print(f"{escape(str(output))}: {bytes_text(size)}, compiled in {time_text(seconds)}")
    console.print(escape("inputs:  " + ", ".join(map(str, compiled.inputs))))
    console.print(escape("outputs: " + ", ".join(map(str, compiled.outputs))))
    for node, why in compiled.fallback_nodes.items():
        console.print(f"[yellow]by reference:[/] {escape(node)}: {escape(why)}")
