# SPDX-License-Identifier: Apache-2.0
"""The profile as one HTML file: no script or style from elsewhere, so it opens without a network."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

KEYS = ("label", "kernel", "start_ns", "ns", "depth", "flops", "gflops", "share", "share_of_peak", "bytes", "out_shape")


def render(about: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    """about: model, inputs, isa, threads, runs, peak_gflops, peak_read_gbs, total_ns. steps: as `profile.with_shares`."""
    data = {"about": about, "steps": [{k: s[k] for k in KEYS if s.get(k) is not None} for s in steps]}
    # "</" would end the script element; node names come from the model file.
    text = (
        json.dumps(data, default=float)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
    return files("fastinfer.cli").joinpath("page.html").read_text(encoding="utf-8").replace("/*DATA*/null", text)
