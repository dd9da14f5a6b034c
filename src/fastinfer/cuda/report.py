# SPDX-License-Identifier: Apache-2.0
"""Plans in words: what explain() and profile() list, in the form of the CPU's reports (csrc/python/reports.cc)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastinfer import _core
from fastinfer.cuda.context import Handle, Step
from fastinfer.cuda.plan import Plan
from fastinfer.cuda.program import DeviceProgram

if TYPE_CHECKING:
    from fastinfer.cuda.dynamic import Dynamic


def explain(program: DeviceProgram, plan: Plan) -> dict[str, Any]:
    steps = [_step(program, step) for step in plan.steps]
    return {"steps": steps, "choices": [], "arena_bytes": plan.arena_bytes, "finished": True}


def explain_dynamic(program: DeviceProgram, dynamic: Dynamic, why: str) -> dict[str, Any]:
    """Node by node, for models that cannot be planned."""
    steps: list[dict[str, Any]] = []
    for i, node in enumerate(program.nodes):
        host = dynamic.host_nodes.get(i)
        refusals = [why] if not steps and why else []
        steps.append({
            "node": i, "label": program.label(i), "op": node["op"], "kernel": "host" if host else f"torch.{node['op']}",
            "parts": 1, "flops": 0.0, "depth": 0, "refusals": [*refusals, *([host] if host else [])],
            "shape": None, "dtype": None, "bytes": 0, "weight_bytes": 0,
        })  # fmt: skip
    return {"steps": steps, "choices": [], "arena_bytes": 0, "finished": True, "by_node": why}


def _step(program: DeviceProgram, step: Step) -> dict[str, Any]:
    handles = [h for h in step.handles if h is not None]
    out = step.out or (handles[-1].desc if handles else None)
    weights = {id(h.tensor): h for h in handles if h.root < 0}
    others = {(h.root, h.desc.bytes): h for h in handles if h.root >= 0}
    weight_bytes = _bytes(list(weights.values()))
    replaced = [program.nodes[i] for i in step.also]
    also = {"also": [str(name) for n in replaced for name in (n["name"], *n.get("also", ()))]} if replaced else {}
    return {
        **also,
        "node": step.node, "label": program.label(step.node) if step.node >= 0 else step.kernel.split("_")[-1], "parts": 1,
        "op": program.nodes[step.node]["op"] if step.node >= 0 else "", "kernel": step.kernel, "flops": step.flops,
        "depth": 0, "refusals": step.refusals, "shape": list(out.shape) if out else None,
        "dtype": str(out.dtype).removeprefix("torch.") if out else None,
        "bytes": weight_bytes + _bytes(list(others.values())), "weight_bytes": weight_bytes,
    }  # fmt: skip


def _bytes(handles: Sequence[Handle]) -> int:
    return sum(h.desc.bytes for h in handles)


def shapes_text(signature: Sequence[tuple[int, tuple[int, ...]]]) -> str:
    return ", ".join(f"{_core.numpy_dtype(code)}{list(shape)}" for code, shape in signature)
