# SPDX-License-Identifier: Apache-2.0
"""The profile as one HTML file: no script or style from elsewhere, so it opens without a network."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from fastinfer.report import node_text, shape_text

KEYS = (
    "kernel", "start_ns", "ns", "median_ns", "depth", "share", "flops", "flops_done", "gflops", "share_of_peak",
    "effective_gflops", "effective_share", "bytes", "gbs",
)  # fmt: skip


def render(about: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    """about: model, inputs, device, isa, threads, runs, peak_gflops, peak_read_gbs, peak_by, total_ns. steps: of one call, as by `report.with_shares`."""
    data = {"about": about, "steps": [_row(s) for s in steps]}
    # "</" would end the script element; node names come from the model file.
    text = (
        json.dumps(data, default=float)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
    return files("fastinfer.cli").joinpath("page.html").read_text(encoding="utf-8").replace("/*DATA*/null", text)


def _row(step: dict[str, Any]) -> dict[str, Any]:
    name, op = node_text(step["label"])
    return {"node": name, "op": op, "shape": shape_text(step), **{k: step[k] for k in KEYS if step.get(k) is not None}}
