# SPDX-License-Identifier: Apache-2.0
"""Runs of small dense layers, act(x · W + b) one after the other, become one launch (kernels/tiny/mlp.cuh).

A launch costs more than a microsecond even inside a graph, a small layer's arithmetic a tenth of that. The kernel multiplies
without tensor cores and reads the weights once per 8 rows, so it must not be given much of either: WEIGHTS bounds what a run
may have. At 30 TFLOP/s of its kind of arithmetic 2^18 weights cost as much as three launches at some 400 rows. Whether a run
is taken depends on its weights alone and never on the batch, as its order of sums is not the matrix product's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from fastinfer.cuda import native
from fastinfer.cuda.node import Node

if TYPE_CHECKING:
    from fastinfer.cuda.plan import Planner
    from fastinfer.cuda.program import DeviceProgram

WEIGHTS = 1 << 18
LAYERS = 16  # kMlpLayers
WIDTH = (227 << 10) // (2 * 8 * 4)  # features whose two halves of 8 rows of float32 fill a block's shared memory


@dataclass(frozen=True)
class Layer:
    node: int
    features: int  # what it takes
    out: int
    turned: bool  # weights are [features, out]
    activation: str
    bias: bool

    @property
    def weights(self) -> int:
        return self.features * self.out


@dataclass
class Chains:
    """starts: runs by their first node. inside: their other nodes, which need no steps. refusals: why nodes that follow each
    other are not one launch, by the first of them."""

    starts: dict[int, list[Layer]] = field(default_factory=dict)
    inside: set[int] = field(default_factory=set)
    refusals: dict[int, str] = field(default_factory=dict)


def find_chains(planner: Planner) -> Chains:
    """For the shapes that the planner has."""
    program, found = planner.program, Chains()
    why = native.missing(program.device.torch)
    for run in _runs(program):
        if not _rows_are_samples(planner, run[0]):
            continue
        for part, cut in _parts(run):
            reason = cut if len(part) == 1 else why
            if reason:
                found.refusals[part[0].node] = f"one launch for {len(run)} layers: {reason}"
            elif len(part) > 1:
                found.starts[part[0].node] = part
                found.inside |= {layer.node for layer in part[1:]}
    return found


def _runs(program: DeviceProgram) -> list[list[Layer]]:
    """Two layers or more, each the only reader of the one before."""
    readers = Counter(v for n in program.nodes for v in n["inputs"] if v >= 0)
    readers.update(port["value"] for port in program.graph.outputs)
    runs: dict[int, list[Layer]] = {}  # by the value that the last layer makes
    for index, node in enumerate(program.nodes):
        layer = layer_of(program, index) if (node["domain"], node["op"]) in _FORMS else None
        if layer is not None:
            x = node["inputs"][0]
            run = runs.pop(x) if x in runs and readers[x] == 1 else []
            runs[node["outputs"][0]] = [*run, layer]
    return [run for run in runs.values() if len(run) > 1]


_FORMS = {("", "MatMul"), ("", "Gemm"), ("fastinfer", "MatMul")}


def layer_of(program: DeviceProgram, index: int) -> Layer | None:
    """The node, if the kernel can do what it does: inputs x, W and bias, no residual."""
    node, attrs = program.nodes[index], program.attributes[index]
    x, w, b, *others = [*node["inputs"], -1, -1][: max(3, len(node["inputs"]))]
    weights, bias = program.constants.get(w), program.constants.get(b)
    activation, turned = attrs.get("activation", ""), not attrs.get("transB", 0)
    if (
        weights is None
        or weights.ndim != 2
        or not weights.size
        or x in program.constants
        or max(others, default=-1) >= 0
    ):
        return None
    if attrs.get("transA", 0) or attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0:
        return None
    features, out = weights.shape if turned else weights.shape[::-1]
    if b >= 0 and (bias is None or bias.size != out or bias.shape[-1:] != (out,)):
        return None
    return Layer(index, features, out, turned, activation, b >= 0) if activation in native.ACTIVATIONS else None


def _rows_are_samples(planner: Planner, first: Layer) -> bool:
    """[m, features] of a type that the kernel has: where a sample has several rows, they come in matrices worth multiplying."""
    x = planner.values.get(planner.program.nodes[first.node]["inputs"][0])
    if x is None or x.known is not None or len(x.desc.shape) < 2 or x.desc.dtype not in native.FLOATS:
        return False
    return 0 < x.desc.shape[0] == x.desc.elements // first.features


def _parts(run: list[Layer]) -> list[tuple[list[Layer], str]]:
    """What of a run fits one launch, and why it ends there."""
    parts: list[tuple[list[Layer], str]] = []
    part: list[Layer] = []
    for layer in run:
        why = _too_much([*part, layer])
        if why and part:
            parts.append((part, why))
            part = []
            why = _too_much([layer])
        part.append(layer)
        if why:
            parts.append((part, why))
            part = []
    return [*parts, (part, "")] if part else parts


def _too_much(part: list[Layer]) -> str:
    weights, width = sum(layer.weights for layer in part), max(max(layer.features, layer.out) for layer in part)
    if width > WIDTH:
        return f"{width} features, more than {WIDTH}"
    if weights > WEIGHTS:
        return f"{weights} weights, more than {WEIGHTS}"
    return f"more than {LAYERS} layers" if len(part) > LAYERS else ""


def bind_chain(planner: Planner, layers: list[Layer]) -> None:
    """One step in the place of the first layer's, which needs nothing but the run's input."""
    first, last = Node(planner, layers[0].node), Node(planner, layers[-1].node)
    x = first.input(0)
    parameters = [h for layer in layers for h in _parameters(Node(planner, layer.node), layer)]
    m = x.desc.elements // layers[0].features
    widths = "-".join(str(n) for n in (layers[0].features, *(layer.out for layer in layers)))
    first.step(
        f"mlp {widths}", run, x, last.output(0), *parameters, flops=2.0 * m * sum(layer.weights for layer in layers),
        activations=tuple(layer.activation for layer in layers),
    )  # fmt: skip
    step = planner.steps[-1]
    step.out, step.also = last.out_desc(0), tuple(layer.node for layer in layers[1:])


def _parameters(context: Node, layer: Layer) -> list[Any]:
    name = "mlp turned" if layer.turned else "mlp"
    weights = context.constant(1, name, lambda w: native.mlp_weights(w.mT if layer.turned else w))
    return [weights, context.constant(2, "flat", lambda b: b.reshape(-1)) if layer.bias else None]


def run(x: torch.Tensor, y: torch.Tensor, *parameters: torch.Tensor | None, activations: tuple[str, ...]) -> None:
    """x [m, …, features] → y [m, …, out]; parameters: weights of native.mlp_weights and bias or None of each layer."""
    layers = [(w, b, name) for w, b, name in zip(parameters[::2], parameters[1::2], activations) if w is not None]
    native.mlp(x.view(x.shape[0], -1), layers, y.view(y.shape[0], -1))
