# SPDX-License-Identifier: Apache-2.0
"""What the CPU's engine says of a call's inputs and of a model's outputs while it runs, and what kernels cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastinfer import _core
from fastinfer.cuda.dtypes import CODES
from fastinfer.cuda.program import DeviceProgram
from fastinfer.errors import InputError, ModelError
from fastinfer.tensors import TensorSpec

# Operators whose output holds the elements of their first input, under another shape or type.
_SAME = {("", op) for op in ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")}
_NUMBERS = set(CODES.values())


class InputChecks:
    """Of a program's inputs on the host. Kernels read memory near by for an index that is out of range, so that indices which
    come as inputs (most do: token ids) are looked at here; 3 µs for a thousand."""

    def __init__(self, program: DeviceProgram) -> None:
        self._ports = program.graph.inputs
        self._tables = _tables(program)

    def types(self, values: Sequence[Any]) -> None:
        """For values that no plan takes. Raises InputError."""
        for port, value in zip(self._ports, values):
            if not isinstance(value, np.ndarray) or port["dtype"] not in _NUMBERS:
                continue
            if _core.dtype_code(value.dtype) != port["dtype"]:
                extents = "" if value.dtype.hasobject else ",".join(map(str, value.shape))
                given = f"{value.dtype.name}[{extents}]"
                raise InputError(f"input '{port['name']}': given {given}, needed {_form(TensorSpec.from_port(port))}")

    def indices(self, arrays: Sequence[np.ndarray]) -> None:
        """Raises InputError."""
        for i, n, label in self._tables:
            given = arrays[i]
            if given.size and (int(given.min()) < -n or int(given.max()) >= n):
                wrong = given[(given < -n) | (given >= n)].flat[0]
                raise InputError(f"{label}: index {wrong} is out of range; needed: {-n} to {n - 1}")


def _form(spec: TensorSpec) -> str:
    return str(spec).removeprefix(f"{spec.name}: ")


def _tables(program: DeviceProgram) -> list[tuple[int, int, str]]:
    """(input, entries, node) of each table that an integer input is an index of."""
    source = {p["value"]: i for i, p in enumerate(program.graph.inputs) if p["dtype"] in (6, 7)}
    found = []
    for k, node in enumerate(program.nodes):
        key, inputs = (node["domain"], node["op"]), node["inputs"]
        if key in _SAME and inputs[0] in source and program.attributes[k].get("to", 7) in (6, 7):
            source[node["outputs"][0]] = source[inputs[0]]
        elif key == ("", "Gather") and inputs[1] in source and inputs[0] in program.constants:
            axis = program.attributes[k].get("axis", 0)
            found.append((source[inputs[1]], program.constants[inputs[0]].shape[axis], program.label(k)))
    return found


def check_outputs(ports: Sequence[dict[str, Any]], values: Mapping[int, tuple[int, tuple[int, ...], Any]]) -> None:
    """values: as the planner found them (_core.pyi). Raises ModelError where an output has another type than it declares."""
    for port in ports:
        if port["value"] not in values or not port["dtype"]:
            continue
        code, shape, _ = values[port["value"]]
        if code != port["dtype"]:
            given = TensorSpec(port["name"], _core.numpy_dtype(code).name, shape)
            declared = TensorSpec.from_port(port)
            raise ModelError(f"output '{port['name']}': the model declares {declared}, but computes {given}")
