# SPDX-License-Identifier: Apache-2.0
"""Products of one value by several weights of one shape (queries, keys and values) become one launch: a batch of products whose
left operand stands still, into results that lie one behind the other.

A launch costs some microseconds, and a product of few rows leaves most of the device idle: three at once do not. Where one product
alone makes a wave of tiles there is nothing to gain, and it may use the copy engine, which batches do not. Whether a group is taken
may depend on the batch, as the sums are the same: only products whose k is not cut (gemm.segments) are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from fastinfer.cuda.chains import Layer, layer_of
from fastinfer.cuda.context import Desc, Handle, Step
from fastinfer.cuda.kernels import gemm
from fastinfer.cuda.kernels.gemm_config import MULTIPROCESSORS
from fastinfer.cuda.kernels.gemm_shape import matmul_shape
from fastinfer.cuda.ops.matmul import products_of

if TYPE_CHECKING:
    from fastinfer.cuda.plan import Planner

WAVE = MULTIPROCESSORS * 128 * 128  # results of a wave of large tiles
_APART = 128  # bytes: where every result begins in the arena
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Siblings:
    """starts: groups by their first node. inside: their other nodes, which need no steps."""

    starts: dict[int, list[Layer]] = field(default_factory=dict)
    inside: set[int] = field(default_factory=set)


def find_siblings(planner: Planner, taken: Container[int]) -> Siblings:
    """For the shapes that the planner has. taken: nodes that are part of something else."""
    program, found = planner.program, Siblings()
    if program.precision.products in ("int8", "fp8"):
        return found
    read = Counter(n["inputs"][0] for n in program.nodes if (n["domain"], n["op"]) in FORMS)
    groups: dict[tuple[int, Layer], list[Layer]] = {}
    for index, node in enumerate(program.nodes):
        if (node["domain"], node["op"]) in FORMS and read[node["inputs"][0]] > 1:
            layer = layer_of(program, index)
            free = index not in taken and node["outputs"][0] not in program.leaves
            if layer is not None and free and not layer.activation:
                groups.setdefault((node["inputs"][0], replace(layer, node=0)), []).append(layer)
    for group in groups.values():
        if len(group) > 1 and _problem(planner, group) is not None:
            found.starts[group[0].node] = group
            found.inside |= {layer.node for layer in group[1:]}
    return found


FORMS = {("", "MatMul"), ("", "Gemm"), ("fastinfer", "MatMul")}


def _problem(planner: Planner, group: list[Layer]) -> gemm.Problem | None:
    """None where the group is better, or can only be, one product after the other."""
    program, first = planner.program, group[0]
    x = planner.values.get(program.nodes[first.node]["inputs"][0])
    if x is None or x.known is not None or x.desc.dtype not in _FLOATS or len(x.desc.shape) < 2 or not x.desc.elements:
        return None
    weights = {
        planner.values[v].desc.dtype for layer in group for v in program.nodes[layer.node]["inputs"][1:] if v >= 0
    }
    if weights != {x.desc.dtype}:
        return None
    s, dtype = matmul_shape(x.desc.shape, (first.out, first.features), False, True), x.desc.dtype
    alone = gemm.Problem(
        s.m, s.n, s.k, dtype, dtype, products_of(program.precision, dtype), s.k, s.k, s.rows, False, True, s.batch
    )  # fmt: skip
    if s.batch or gemm.segments(alone)[0] > 1 or s.m * s.n > WAVE or s.m * s.n * dtype.itemsize % _APART:
        return None
    residual, strides = ("before", (s.n, 0, 1)) if first.bias else ("", (0, 0, 0))
    return replace(alone, batch=((len(group), 0, s.n * s.k),), residual=residual, residual_strides=strides)


def bind_siblings(planner: Planner, group: list[Layer]) -> None:
    """One step in the place of the first node's. Biases differ from product to product as residuals may."""
    program, p = planner.program, _problem(planner, group)
    assert p is not None
    nodes = [program.nodes[layer.node] for layer in group]
    turned = group[0].turned
    weights = program.stacked(
        [n["inputs"][1] for n in nodes], "gemm_nk" if turned else "", _transposed if turned else None, p.dtype
    )
    biases = None
    if group[0].bias:
        biases = _constant(program.stacked([n["inputs"][2] for n in nodes], "flat", _flat, p.dtype))
    x, y = planner.where(nodes[0]["inputs"][0]), planner.define_together([n["outputs"][0] for n in nodes])
    config = planner.tuner.choose(gemm, p)
    static = {"problem": p, "config": config, "alpha": 1.0, "beta": 1.0, "act_alpha": 0.0, "act_beta": 0.0}
    handles = (x, _constant(weights), y, None, biases, None, None, None)
    planner.steps.append(Step(
        group[0].node, f"triton_gemm {p.products} {config} x{len(group)}", gemm.run, handles, static,
        2.0 * p.m * p.n * p.k * len(group), out=y.desc, also=tuple(layer.node for layer in group[1:]),
    ))  # fmt: skip


def _constant(tensor: torch.Tensor) -> Handle:
    return Handle(Desc(tensor.dtype, tuple(tensor.shape)), tensor)


def _transposed(w: torch.Tensor) -> torch.Tensor:
    return w.mT


def _flat(b: torch.Tensor) -> torch.Tensor:
    return b.reshape(-1)
