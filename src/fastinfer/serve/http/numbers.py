# SPDX-License-Identifier: Apache-2.0
"""Tensors as JSON: lists, nested or flat, to arrays and back.

JSON has no NaN and no infinities. They are written as the strings "NaN", "Infinity" and "-Infinity", as the JSON mapping
of protobuf has them: any JSON parser reads them, and ``numpy.array(data, dtype)``, which is what tritonclient does, gives
back the same numbers. The same strings are understood in floating-point inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from fastinfer.serve.datatypes import BYTES, dtype_of, elements
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.jsontext import kind

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def from_lists(name: str, datatype: str, shape: Sequence[int] | None, data: Any) -> np.ndarray:
    """The array that `data` holds: flat, or nested as `shape` says. shape None: as it is nested. Raises ServeError."""
    flat, nesting = _flatten(name, data)
    if shape is None:
        shape = nesting
    count = elements(name, shape)
    if len(flat) != count:
        raise _refused(name, f"{len(flat)} elements were given; the shape {list(shape)} has {count}")
    # Without elements the inner extents cannot be nested: [1, 0, 0] is [[]].
    if len(nesting) > 1 and list(nesting) != list(shape if count else shape[: len(nesting)]):
        raise _refused(name, f"the lists are nested as {list(nesting)}; the shape is {list(shape)}")
    return _array(name, datatype, flat).reshape(shape)


def _flatten(name: str, data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """All elements in order, and the extents of the nesting. Level by level in C: 20 ns per element."""
    level, shape = [data], []
    while level and type(level[0]) is list:
        if any(t is not list for t in set(map(type, level))):
            raise _refused(name, "lists and elements stand side by side")
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise _refused(name, f"the lists of one level have different lengths: {sorted(lengths)[:4]}")
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def _array(name: str, datatype: str, flat: list[Any]) -> np.ndarray:
    """One dimension. The types are looked at first: numpy would read "1.5", null and true as numbers."""
    types = set(map(type, flat))
    if datatype == BYTES:
        _only(name, datatype, types, (str,), "strings")
        strings = np.empty(len(flat), object)
        strings[:] = [s.encode() for s in flat]
        return strings
    dtype = dtype_of(name, datatype)
    if dtype.kind == "b":
        _only(name, datatype, types, (bool, int), "true and false")
        return _integers(name, datatype, np.dtype(np.uint8), flat, 1).astype(np.bool_)
    if dtype.kind in "iu":
        _only(name, datatype, types, (int,), "integers")
        return _integers(name, datatype, dtype, flat, int(np.iinfo(dtype).max))
    return _floats(name, datatype, dtype, flat, types)


def _only(name: str, datatype: str, types: set[type], wanted: tuple[type, ...], words: str) -> None:
    for given in types:
        if given not in wanted:
            what = "a number that is no 64-bit integer" if given is float else kind(given())
            raise _refused(name, f"{what} was given; {datatype} needs {words}")


def _integers(name: str, datatype: str, dtype: np.dtype, flat: list[int], most: int) -> np.ndarray:
    least = 0 if dtype.kind == "u" else -most - 1
    try:
        if dtype == np.uint64:
            if flat and min(flat) < 0:
                raise OverflowError
            return np.array(flat, np.uint64)
        array = np.array(flat, np.int64)
        if array.size and not least <= array.min() <= array.max() <= most:
            raise OverflowError
    except OverflowError:
        raise _refused(name, f"an integer is out of range; {datatype} holds {least} to {most}") from None
    return array.astype(dtype, copy=False)


def _floats(name: str, datatype: str, dtype: np.dtype, flat: list[Any], types: set[type]) -> np.ndarray:
    words = str in types
    if words:
        flat = [WORDS.get(x, x) if type(x) is str else x for x in flat]
        types = set(map(type, flat))
    _only(name, datatype, types, (float, int), "numbers")
    with np.errstate(over="ignore"):
        array = np.array(flat, np.float64).astype(dtype, copy=False)
    finite = np.isfinite(array)
    if not finite.all() and (not words or not finite[np.isfinite(np.array(flat, np.float64))].all()):
        raise _refused(name, f"a number is out of range; {datatype} holds up to {_largest(dtype):g} in size")
    return array


def _largest(dtype: np.dtype) -> float:
    return 3.3895313892515355e38 if dtype.kind == "V" else float(np.finfo(dtype).max)


def to_json(array: np.ndarray, nested: bool = False) -> Any:
    """Numbers as orjson writes them, flat or nested: the array itself, or lists where something has to be put in words."""
    if array.dtype.kind == "V":  # bfloat16
        array = array.astype(np.float32)
    shape = array.shape if nested else (-1,)
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "f" and not (finite := np.isfinite(flat)).all():
        # Through JSON and back float32 comes out as short as it prints; what is not finite comes out as None.
        numbers = np.empty(flat.size, object)
        numbers[:] = orjson.loads(orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY))
        for word, places in (("NaN", np.isnan(flat)), ("Infinity", flat > 0), ("-Infinity", flat < 0)):
            numbers[places & ~finite] = word
        return numbers.reshape(shape).tolist()
    # orjson writes no arrays without dimensions or elements
    return flat.reshape(shape) if shape and flat.size else flat.reshape(shape).tolist()


def strings(name: str, array: np.ndarray) -> list[str]:
    """The elements of a BYTES tensor as text. Raises ServeError for what is not UTF-8."""
    try:
        return [s.decode() if isinstance(s, bytes) else str(s) for s in array.reshape(-1)]
    except UnicodeDecodeError:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"output '{name}' holds bytes that are not UTF-8: ask for it with binary_data true"
        ) from None


def _refused(name: str, text: str) -> ServeError:
    return ServeError(Kind.INVALID_ARGUMENT, f"tensor '{name}': {text}")
