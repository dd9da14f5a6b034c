# SPDX-License-Identifier: Apache-2.0
"""Models and their inputs from the command line."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import fastinfer
from fastinfer import bench
from fastinfer.cli.output import progress
from fastinfer.errors import InputError, ModelError

ModelPath = Annotated[
    Path, typer.Argument(help="An ONNX file, a .pt2 file (torch.export.save), or a saved .safetensors.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", "-s", help="NAME:1x3x224x224; several by commas or by repeating. NAME: for a scalar."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", help="NAME=FILE.npy, or NAME=VALUE for a scalar or a list (16000 or 1,2,3 or words)."
    ),
]
Npz = Annotated[Path | None, typer.Option("--inputs", help="A .npz file with one array per input.")]
Threads = Annotated[int | None, typer.Option("--threads", "-t", help="Threads of a call; default: usable cores.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail when an operator has no native form.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="fp32, or bf16: products of operands rounded to bfloat16, sums in float32. With --device cuda also tf32, f16, int8, fp8.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, or cuda (cuda:1): docs/gpu.md.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of random inputs.")]


def load_model(
    path: Path, threads: int | None, strict: bool, quiet: bool, precision: str = "fp32", device: str = "cpu"
) -> tuple[fastinfer.Model, Any]:
    """(the compiled model, the torch.export.ExportedProgram it came from or None)."""
    if not path.exists():
        raise ModelError(f"'{path}' does not exist")
    with progress(f"compiling {path.name}", quiet):
        if path.suffix == ".safetensors":
            if precision != "fp32" and device == "cpu":
                raise typer.BadParameter(
                    "a saved program has the precision it was compiled with", param_hint="--precision"
                )
            options = {} if device == "cpu" else {"device": device, "precision": precision}
            return fastinfer.load(path, threads=threads, strict=strict, **options), None
        if path.suffix == ".pt2":
            import torch

            logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it logs a traceback before it raises
            try:
                exported = torch.export.load(path)
            except Exception as error:
                raise ModelError(f"'{path}' is not an exported torch program: {error}") from error
            source: Any = exported
        else:
            exported, source = None, path
        return fastinfer.compile(source, device=device, precision=precision, threads=threads, strict=strict), exported


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """["x:1x3x224x224,y:", "z:2"] → {"x": (1, 3, 224, 224), "y": (), "z": (2,)}. Names may hold colons."""
    shapes = {}
    for text in (part for whole in texts or [] for part in whole.split(",") if part):
        name, colon, extents = text.rpartition(":")
        if not colon or not re.fullmatch(r"(\d+(x\d+)*)?", extents):
            raise InputError(f"--shape '{text}': needed NAME:1x3x224x224")
        if name in shapes:
            raise InputError(f"--shape gives '{name}' twice")
        shapes[name] = tuple(int(d) for d in extents.split("x") if d)
    return shapes


def gather(
    model: fastinfer.Model, shapes: list[str] | None, inputs: list[str] | None, npz: Path | None, seed: int
) -> dict[str, np.ndarray]:
    """Given inputs, and random ones for the rest. Raises InputError."""
    known = {spec.name: spec for spec in [*model.inputs, *model.overridable]}
    given: dict[str, np.ndarray] = {}
    named: set[str] = set()
    if npz is not None:
        given.update({name: array for name, array in _load(npz).items() if name in known})
    for text in inputs or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--input '{text}': needed NAME=FILE.npy or NAME=VALUE")
        _must_know(name, known)
        if name in named:
            raise InputError(f"--input gives '{name}' twice")
        named.add(name)
        given[name] = _value(value, known[name].zeros().dtype, name)
    wanted = parse_shapes(shapes)
    for name in wanted:
        _must_know(name, known)
    try:
        random = bench.random_inputs(model, wanted, seed)
    except (ValueError, MemoryError) as error:
        raise InputError(f"random inputs of these shapes: {error}") from error
    return {**random, **given}


def _must_know(name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise InputError(f"no input is called '{name}'; the model has: {', '.join(map(str, known.values()))}")


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"'{path}' cannot be read as numpy data: {error}") from error


def _value(text: str, dtype: np.dtype, name: str) -> np.ndarray:
    if text.endswith(".npy"):
        return np.asarray(_load(Path(text)))
    if dtype.kind == "O":
        return np.array(text.split(",") if "," in text else text, object)
    try:
        values = [float(x) if np.issubdtype(dtype, np.floating) else int(x) for x in text.split(",")]
        return np.array(values if "," in text else values[0], dtype)
    except (ValueError, OverflowError) as error:
        raise InputError(f"--input {name}={text}: needed a .npy file or numbers of type {dtype}: {error}") from error


def place_of(model: fastinfer.Model) -> str:
    """The instruction set and the threads, or the device."""
    return f"{model.place}, {model.threads} threads" if model.device == "cpu" else model.place


def shapes_of(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name}:{'x'.join(map(str, np.shape(a)))}" for name, a in arrays.items())
