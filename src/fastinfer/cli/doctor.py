# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

import fastinfer
from fastinfer import _core
from fastinfer.cli.output import Json, Unhealthy, console, print_json, progress, table
from fastinfer.errors import UnsupportedError

PACKAGES = [
    "numpy",
    "safetensors",
    "onnx",
    "onnx-ir",
    "torch",
    "triton",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "typer",
    "rich",
]


def doctor(json: Json = False) -> None:
    """Describe this machine and installation, measure its peak, and check that a small model computes the right thing.

    Exit code 1 when the check fails.
    """
    with progress("measuring", json):
        report = examine()
    if json:
        print_json(report)
    else:
        _show(report)
    if report["self_test"] != "ok" or report["gpu"].get("self_test", "ok") != "ok":
        raise Unhealthy


def examine() -> dict[str, Any]:
    cores = _core.usable_cores()
    l1, l2, l3 = _core.caches()
    return {
        "fastinfer": fastinfer.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "isa": {"active": _core.active_isa(), "best_here": _core.detected_isa()},
        "cores": {"usable": cores, "present": os.cpu_count()},
        "caches_kib": {"L1d": l1 >> 10, "L2": l2 >> 10, "L3": l3 >> 10},
        "peak": [_core.measure_peak(n) for n in sorted({1, cores})],
        "native_operators": len(_core.native_ops()),
        "packages": {name: _version(name) for name in PACKAGES},
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("FASTINFER_")},
        "gpu": gpu(),
        "self_test": self_test(),
    }


def gpu() -> dict[str, Any]:
    """What device="cuda" would run on, with a self test there, or what is missing."""
    try:
        import triton  # noqa: F401
        from torch import version

        from fastinfer.cuda.device import open_device
    except ImportError as error:
        return {"missing": f"{error.name} is not installed: pip install 'fastinfer[gpu]'"}
    try:
        found = open_device("cuda")
    except UnsupportedError as error:
        return {"missing": str(error)}
    return {
        "name": found.name, "capability": found.capability / 10, "memory_gib": round(found.memory / (1 << 30), 1),
        "cuda": version.cuda, "self_test": self_test("cuda"),
    }  # fmt: skip


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def self_test(device: str = "cpu") -> str:
    """ "ok", or what is wrong: relu(x @ w) against numpy in float64."""
    try:
        import onnx
    except ModuleNotFoundError:
        return "onnx is not installed: saved programs run, compiling does not"
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 67), np.float32), rng.standard_normal((67, 35), np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "self_test",
        [helper.make_tensor_value_info("x", 1, ["n", 67])],
        [helper.make_tensor_value_info("y", 1, ["n", 35])],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        y = fastinfer.compile(model, device=device).run({"x": x})["y"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    gap = float(np.abs(y - np.maximum(x.astype(np.float64) @ w, 0)).max())
    return "ok" if gap < 1e-4 else f"relu(x @ w) is wrong by {gap:.2g}"


def gpu_text(found: dict[str, Any]) -> str:
    if "missing" in found:
        return f"none: {found['missing']}"
    about = (
        f"{found['name']}, compute capability {found['capability']}, {found['memory_gib']} GiB, CUDA {found['cuda']}"
    )
    return f"{about}; self test: {found['self_test']}"


def _show(report: dict[str, Any]) -> None:
    shown = table("", "")
    shown.show_header = False
    isa = report["isa"]
    rows = {
        "fastinfer": f"{report['fastinfer']}, Python {report['python']}, {report['native_operators']} native operators",
        "machine": f"{report['cpu']}, {report['platform']}",
        "instruction set": isa["active"]
        + ("" if isa["active"] == isa["best_here"] else f" (forced; best here: {isa['best_here']})"),
        "cores": f"{report['cores']['usable']} usable of {report['cores']['present']}",
        "caches": ", ".join(f"{k} {v} KiB" for k, v in report["caches_kib"].items()),
    }
    for peak in report["peak"]:
        plural = "s" if peak["threads"] > 1 else ""
        rows[f"peak, {peak['threads']} thread{plural}"] = (
            f"{peak['gflops']:.0f} GFLOP/s float32, {peak['read_gbs']:.0f} GB/s read"
        )
    rows["GPU"] = gpu_text(report["gpu"])
    rows["packages"] = ", ".join(f"{k} {v}" for k, v in report["packages"].items() if v)
    rows["not installed"] = ", ".join(k for k, v in report["packages"].items() if not v) or "-"
    rows["environment"] = (
        ", ".join(f"{k}={v}" for k, v in report["environment"].items()) or "no FASTINFER_* variable is set"
    )
    for name, text in rows.items():
        shown.add_row(f"[bold]{name}[/]", escape(text))
    good = report["self_test"] == "ok"
    shown.add_row("[bold]self test[/]", "[green]ok[/]" if good else f"[red]{escape(report['self_test'])}[/]")
    console.print(shown)
