# SPDX-License-Identifier: Apache-2.0
"""Checks of a rewritten graph: structure, and the same results through onnx.reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from . import pattern as P
from .fused import to_standard

Arrays = Mapping[str, np.ndarray]


class VerificationError(Exception):
    """A graph is not well formed, or computes something else than before."""


def check_structure(model: ir.Model) -> None:
    """Single assignment, definitions before uses, outputs produced, names unique; then ONNX's own checker.

    Raises:
        VerificationError: with the node and value at fault.
    """
    _check_graph(model.graph, set(), set())
    proto = ir.to_proto(to_standard(model))
    for tensor in proto.graph.initializer:  # the checker copies: leave it no weights to copy
        if len(tensor.raw_data) > 1 << 24:
            return
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as e:
        raise VerificationError(f"the ONNX checker says: {e}") from e


def _check_graph(graph: ir.Graph, outer: set[ir.Value], names: set[str]) -> None:
    defined = set(outer)
    for given in [*graph.inputs, *graph.initializers.values()]:
        if given not in defined:
            defined.add(given)
            _check_name(given, names)
    for node in graph:
        if node.graph is not graph:
            raise VerificationError(f"node '{node.name}' does not know its graph")
        for i, value in enumerate(node.inputs):
            if value is None:
                continue
            if value not in defined:
                raise VerificationError(
                    f"{node.op_type} '{node.name}': input {i} '{value.name}' is used before it is made"
                )
            if (node, i) not in value._uses:
                raise VerificationError(f"{node.op_type} '{node.name}': input {i} '{value.name}' does not list its use")
        for attribute in node.attributes.values():
            for nested in P.nested_graphs(attribute):
                _check_graph(nested, defined, set(names))
        for made in node.outputs:
            if made.name == "":
                continue
            defined.add(made)
            _check_name(made, names)
    for output in graph.outputs:
        if output not in defined:
            raise VerificationError(f"graph output '{output.name}' is not produced")


def _check_name(value: ir.Value, names: set[str]) -> None:
    if not value.name or value.name in names:
        raise VerificationError(f"value name '{value.name}' is missing or taken twice")
    names.add(value.name)


def run_reference(model: ir.Model, inputs: Arrays) -> list[np.ndarray]:
    """The outputs of a model (fastinfer operators allowed) in onnx.reference."""
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(ir.to_proto(to_standard(model))).run(None, dict(inputs))


def check_results(expected: list[np.ndarray], found: list[np.ndarray], tolerance: float = 1e-4) -> None:
    """Equal within tolerance · max|expected|, output by output.

    Raises:
        VerificationError: with the first output that differs.
    """
    for i, (a, b) in enumerate(zip(expected, found, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise VerificationError(f"output {i} was {a.dtype}{a.shape} and became {b.dtype}{b.shape}")
        if a.dtype.kind != "f":
            if not np.array_equal(a, b):
                raise VerificationError(f"output {i} has other values")
            continue
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            raise VerificationError(f"output {i} differs in what is not finite")
        scale = float(np.max(np.abs(a[finite]), initial=0.0))
        error = float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))
        if error > tolerance * max(scale, 1e-6):
            raise VerificationError(f"output {i} is off by {error:.3g} at a scale of {scale:.3g}")
