# SPDX-License-Identifier: Apache-2.0
"""A model's inputs and outputs in the protocol's terms: what a request gives is checked against them, never converted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fastinfer.serve.datatypes import BYTES, DTYPES, NAMES, datatype_of
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest, Tensor
from fastinfer.serve.repository.names import quoted
from fastinfer.tensors import TensorSpec

_OBJECT = np.dtype(object)


class Port:
    """One input or output. dtype: None where the model declares none; shape: None for any, -1 for free extents."""

    __slots__ = ("datatype", "dtype", "fixed", "name", "rank", "shape")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.datatype = "FP32" if spec.dtype == "any" else datatype_of(spec.dtype)
        any_type = spec.dtype == "any"
        self.dtype = None if any_type else _OBJECT if self.datatype == BYTES else DTYPES[self.datatype]
        self.shape = None if spec.shape is None else tuple(d if isinstance(d, int) else -1 for d in spec.shape)
        self.rank = -1 if self.shape is None else len(self.shape)
        self.fixed = tuple((axis, d) for axis, d in enumerate(self.shape or ()) if d >= 0)

    def check(self, tensor: Tensor) -> None:
        """Raises ServeError unless the tensor has this type and shape."""
        array = tensor.array
        if self.dtype is not None and array.dtype != self.dtype:
            raise self._wrong(tensor)
        if self.rank < 0:
            return
        shape = array.shape
        if len(shape) != self.rank:
            raise self._wrong(tensor)
        for axis, extent in self.fixed:
            if shape[axis] != extent:
                raise self._wrong(tensor)

    def _wrong(self, tensor: Tensor) -> ServeError:
        given = f"{tensor.datatype} {list(tensor.array.shape)[:16]}"
        return ServeError(Kind.INVALID_ARGUMENT, f"input '{self.name}': {given} was given; needed: {self}")

    def __str__(self) -> str:
        return f"{self.datatype} {'of any shape' if self.shape is None else list(self.shape)}"

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape or (-1,))}


class Feed(dict):
    """The arrays of a request by input name. rows: set when the batcher asks how many it has."""

    __slots__ = ("rows",)
    rows: int


class Ports:
    """All inputs and outputs of a model. held: inputs that the server itself gives (a sequence's state).

    Raises ServeError for types that the protocol lacks."""

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], held: Collection[str] = ()) -> None:
        self.inputs = [Port(s) for s in inputs if s.name not in held]
        self.outputs = [Port(s) for s in outputs]
        self._inputs = {p.name: p for p in self.inputs}
        self._names = [p.name for p in self.outputs]
        self._known = frozenset(self._names)

    def feed(self, tensors: Sequence[Tensor]) -> Feed:
        """What the model is given. Raises ServeError for missing, unknown and repeated inputs, other types and shapes."""
        feed = Feed()
        for tensor in tensors:
            name = tensor.name
            port = self._inputs.get(name)
            if port is None:
                raise ServeError(
                    Kind.INVALID_ARGUMENT, f"no input is called {quoted(name)}; the model has: {_list(self._inputs)}"
                )
            if name in feed:
                raise ServeError(Kind.INVALID_ARGUMENT, f"input '{name}' is given twice")
            port.check(tensor)
            feed[name] = _texts(name, tensor.array) if port.dtype is _OBJECT else tensor.array
        if len(feed) != len(self._inputs):
            missing = [n for n in self._inputs if n not in feed]
            raise ServeError(Kind.INVALID_ARGUMENT, f"missing input: {_list(missing)}; needed: {_list(self._inputs)}")
        return feed

    def wanted(self, request: InferRequest) -> list[str]:
        """The outputs that a request asks for, in its order. Raises ServeError for unknown and repeated ones."""
        if request.outputs is None:
            return self._names
        names = [o.name for o in request.outputs]
        if len(set(names)) != len(names):
            twice = next(n for i, n in enumerate(names) if n in names[:i]) if len(names) <= 1024 else "one"
            raise ServeError(Kind.INVALID_ARGUMENT, f"output {quoted(twice)} is asked for twice")
        for name in names:
            if name not in self._known:
                raise ServeError(
                    Kind.INVALID_ARGUMENT, f"no output is called {quoted(name)}; the model has: {_list(self._names)}"
                )
        return names

    @staticmethod
    def tensors(results: Mapping[str, Any], names: Sequence[str]) -> list[Tensor]:
        """The named results as the protocol's tensors. Raises ServeError for what it cannot express."""
        made = []
        for name in names:
            array = results[name]
            if not isinstance(array, np.ndarray):
                raise ServeError(
                    Kind.UNSUPPORTED, f"output '{name}' is a {type(array).__name__}, which the protocol cannot express"
                )
            datatype = NAMES.get(array.dtype) or datatype_of(array.dtype)
            made.append(Tensor(name, datatype, _bytes(array) if datatype == BYTES else array))
        return made


def _list(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:32])
    return f"{shown}, … ({len(names)} in all)" if len(names) > 32 else shown


def _texts(name: str, array: np.ndarray) -> np.ndarray:
    """ONNX strings are UTF-8 text."""
    made = np.empty(array.shape, object)
    flat = made.reshape(-1)
    for i, item in enumerate(array.reshape(-1)):
        try:
            flat[i] = item.decode() if isinstance(item, bytes) else str(item)
        except UnicodeDecodeError as e:
            raise ServeError(Kind.INVALID_ARGUMENT, f"input '{name}': string {i} is not UTF-8: {e.reason}") from None
    return made


def _bytes(array: np.ndarray) -> np.ndarray:
    made = np.empty(array.shape, object)
    flat = made.reshape(-1)
    for i, item in enumerate(array.reshape(-1)):
        flat[i] = item if isinstance(item, bytes) else str(item).encode()
    return made
