# SPDX-License-Identifier: Apache-2.0
"""Typed contents (InferTensorContents) as arrays, and parameters: what protobuf itself holds of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastinfer.serve.datatypes import BYTES, DTYPES, dtype_of, elements
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import Parameters

# Datatype → the field that holds it, and its type there.
_FIELDS: dict[str, tuple[str, Any]] = {
    "BOOL": ("bool_contents", np.bool_),
    "INT8": ("int_contents", np.int32), "INT16": ("int_contents", np.int32), "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64), "UINT64": ("uint64_contents", np.uint64),
    "UINT8": ("uint_contents", np.uint32), "UINT16": ("uint_contents", np.uint32), "UINT32": ("uint_contents", np.uint32),
    "FP32": ("fp32_contents", np.float32), "FP64": ("fp64_contents", np.float64), BYTES: ("bytes_contents", None),
}  # fmt: skip
MAX_PARAMETERS = 256


def typed(name: str, datatype: str, shape: Sequence[int], contents: Any) -> np.ndarray:
    """An array of typed contents. Raises ServeError where field, count or range do not agree with datatype and shape."""
    if datatype not in _FIELDS:
        dtype_of(name, datatype)  # raises for what nobody knows
        raise _refuse(name, f"the protocol has no contents of {datatype}: use raw_input_contents")
    field, wide = _FIELDS[datatype]
    count = elements(name, shape)
    others = [f.name for f, _ in contents.ListFields() if f.name != field]
    if others:
        raise _refuse(name, f"{datatype} is given in {field}, not in {', '.join(others)}")
    values = getattr(contents, field)
    if len(values) != count:
        raise _refuse(name, f"{field} has {len(values)} elements; {datatype} {list(shape)} needs {count}")
    if wide is None:
        strings = np.empty(count, object)
        strings[:] = list(values)
        return strings.reshape(shape)
    array = np.fromiter(values, wide, count)
    dtype = DTYPES[datatype]
    if dtype.itemsize < array.itemsize and count:
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise _refuse(name, f"{field} goes from {array.min()} to {array.max()}; {datatype} does not")
    return array.astype(dtype, copy=False).reshape(shape)


def _refuse(name: str, text: str) -> ServeError:
    return ServeError(Kind.INVALID_ARGUMENT, f"input '{name}': {text}")


def read_parameters(given: Any, where: str) -> Parameters:
    """A map of InferParameter or ModelRepositoryParameter as a dict. Raises ServeError for one that has no value."""
    if not given:
        return {}
    if len(given) > MAX_PARAMETERS:
        raise ServeError(Kind.INVALID_ARGUMENT, f"{where}: {len(given)} parameters; at most {MAX_PARAMETERS} are taken")
    parameters = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise ServeError(Kind.INVALID_ARGUMENT, f"{where}: parameter '{name[:64]}' has no value")
        parameters[name] = getattr(parameter, choice)
    return parameters


def write_parameters(given: Parameters, into: Any) -> None:
    """A dict as a map of InferParameter."""
    for name, value in given.items():
        if isinstance(value, bool):
            into[name].bool_param = value
        elif isinstance(value, int):
            if value < 1 << 63:
                into[name].int64_param = value
            else:
                into[name].uint64_param = value
        elif isinstance(value, float):
            into[name].double_param = value
        else:
            into[name].string_param = str(value)
