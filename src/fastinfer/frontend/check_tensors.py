# SPDX-License-Identifier: Apache-2.0
"""Every TensorProto of a model, before anything allocates by its dims: type, extents and bytes must agree."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import AttributeProto, TensorProto

from fastinfer.errors import ModelError
from fastinfer.frontend.source import Home

# A dense copy of a sparse tensor is the one place where a few bytes may ask for many.
MAX_SPARSE_BYTES = 2**30
MAX_RANK = 64

_VALUES_PER_ENTRY = {TensorProto.COMPLEX64: 2, TensorProto.COMPLEX128: 2}
_FIELDS = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.COMPLEX64), "float_data"),
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.COMPLEX128), "double_data"),
    TensorProto.INT64: "int64_data",
    **dict.fromkeys((TensorProto.UINT32, TensorProto.UINT64), "uint64_data"),
    TensorProto.STRING: "string_data",
}  # all others: int32_data


def check_tensors(model: onnx.ModelProto, home: Home | None) -> None:
    """Checks all tensors; makes sparse ones dense, and points external ones at their verified files (in place)."""
    for graph in graphs_of(model):
        names: set[str] = set()
        for i, tensor in enumerate(graph.initializer):
            where = f"initializer '{tensor.name}'"
            if not tensor.name:
                raise ModelError(f"graph '{graph.name}': initializer {i} has no name")
            check_tensor(tensor, where, home)
            _check_new(tensor.name, names, graph)
        for sparse in graph.sparse_initializer:
            graph.initializer.append(dense(sparse, f"sparse initializer '{sparse.values.name}'", home))
            _check_new(sparse.values.name, names, graph)
        del graph.sparse_initializer[:]
    for node in nodes_of(model):
        for attribute in node.attribute:
            _check_attribute(node, attribute, home)


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield from _subgraphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                yield from _graphs_in(attribute)


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs_of(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            yield from _graphs_in(attribute)


def _graphs_in(attribute: AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield from _subgraphs(attribute.g)
    for graph in attribute.graphs:
        yield from _subgraphs(graph)


def _check_new(name: str, names: set[str], graph: onnx.GraphProto) -> None:
    if name in names:
        raise ModelError(f"graph '{graph.name}': two initializers are named '{name}'")
    names.add(name)


def _check_attribute(node: onnx.NodeProto, attribute: AttributeProto, home: Home | None) -> None:
    where = f"attribute '{attribute.name}' of {node.op_type} '{node.name}'"
    if attribute.type == AttributeProto.TENSOR:
        check_tensor(attribute.t, where, home)
    elif attribute.type == AttributeProto.TENSORS:
        for tensor in attribute.tensors:
            check_tensor(tensor, where, home)
    elif attribute.type == AttributeProto.SPARSE_TENSOR:
        tensor = dense(attribute.sparse_tensor, where, home)
        attribute.Clear()
        attribute.name, attribute.type = "value", AttributeProto.TENSOR  # only Constant has a sparse attribute
        attribute.t.CopyFrom(tensor)
    elif attribute.type == AttributeProto.SPARSE_TENSORS:
        raise ModelError(f"{where}: lists of sparse tensors occur in no operator")


def check_tensor(tensor: TensorProto, where: str, home: Home | None) -> None:
    """Raises ModelError unless data_type, dims and data agree."""
    count = _element_count(tensor, where)
    if tensor.data_location == TensorProto.EXTERNAL:
        _resolve_external(tensor, where, count, home)
        return
    if tensor.HasField("raw_data"):
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"{where}: strings cannot be given as raw_data")
        given, needed, unit = len(tensor.raw_data), _byte_count(tensor, count), "bytes"
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        given, needed, unit = len(getattr(tensor, field)), _entry_count(tensor, count), f"entries of {field}"
    if given != needed:
        raise ModelError(f"{where}: {given} {unit} given, {_form(tensor)} needs {needed}")


def dense(sparse: onnx.SparseTensorProto, where: str, home: Home | None) -> TensorProto:
    """The dense form of a sparse tensor, refused above MAX_SPARSE_BYTES."""
    import numpy as np

    for part in (sparse.values, sparse.indices):
        check_tensor(part, where, None)
    shape = tuple(sparse.dims)
    shell = TensorProto(data_type=sparse.values.data_type, dims=shape)
    size = _byte_count(shell, _element_count(shell, where))
    if size > MAX_SPARSE_BYTES:
        raise ModelError(
            f"{where}: its dense form {_form(shell)} takes {size} bytes, at most {MAX_SPARSE_BYTES} are made"
        )
    values = ir.serde.deserialize_tensor(sparse.values).numpy()
    indices = np.asarray(ir.serde.deserialize_tensor(sparse.indices).numpy())
    if values.ndim != 1 or indices.shape not in ((len(values),), (len(values), len(shape))):
        raise ModelError(f"{where}: values {values.shape} and indices {indices.shape} do not belong together")
    result = np.zeros(shape, values.dtype)
    limits = np.asarray(result.size if indices.ndim == 1 else shape)
    if indices.size and ((indices < 0) | (indices >= limits)).any():
        raise ModelError(f"{where}: an index lies outside {list(shape)}")
    if indices.ndim == 1:
        result.reshape(-1)[indices] = values
    else:
        result[tuple(indices.T)] = values
    return ir.serde.serialize_tensor(ir.Tensor(result, dtype=ir.DataType(shell.data_type), name=sparse.values.name))


def _element_count(tensor: TensorProto, where: str) -> int:
    known = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
    if tensor.data_type not in known or tensor.data_type not in {int(t) for t in ir.DataType}:
        raise ModelError(f"{where}: data type {tensor.data_type} is not one that ONNX defines")
    if len(tensor.dims) > MAX_RANK:
        raise ModelError(f"{where}: rank {len(tensor.dims)} given, at most {MAX_RANK} is possible")
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{where}: dims {list(tensor.dims)} given, none may be negative")
    return math.prod(tensor.dims)  # Python's integers do not overflow


def _byte_count(tensor: TensorProto, count: int) -> int:
    if tensor.data_type == TensorProto.STRING:
        return 0
    return (count * ir.DataType(tensor.data_type).bitwidth + 7) // 8


def _entry_count(tensor: TensorProto, count: int) -> int:
    bits = 8 if tensor.data_type == TensorProto.STRING else ir.DataType(tensor.data_type).bitwidth
    if bits in (2, 4):  # packed, a byte per entry
        return (count * bits + 7) // 8
    return count * _VALUES_PER_ENTRY.get(tensor.data_type, 1)


def _form(tensor: TensorProto) -> str:
    return f"{TensorProto.DataType.Name(tensor.data_type).lower()}{list(tensor.dims)}"


def _resolve_external(tensor: TensorProto, where: str, count: int, home: Home | None) -> None:
    if tensor.data_type == TensorProto.STRING:
        raise ModelError(f"{where}: strings cannot be external data")
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    if home is None:
        raise ModelError(
            f"{where}: its data is in the external file '{location}', but the model was not given as a path"
        )
    path = _contained_path(location, where, home)
    offset, needed = _natural(info, "offset", 0, where), _byte_count(tensor, count)
    length = _natural(info, "length", needed, where)
    if length != needed:
        raise ModelError(f"{where}: external length {length} bytes given, {_form(tensor)} needs {needed}")
    size = path.stat().st_size
    if offset + needed > size:
        raise ModelError(f"{where}: bytes {offset} to {offset + needed} needed, '{path}' has {size}")
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = str(path)


def _contained_path(location: str, where: str, home: Home) -> Path:
    """The file an external tensor lives in: a regular file below the model's directory, symbolic links resolved. Where the
    model file is itself a link (as in the Hugging Face cache), a link to a file beside the real model file will do."""
    if not location or "\0" in location:
        raise ModelError(f"{where}: external data without a valid location")
    if os.path.isabs(location) or ".." in Path(location.replace("\\", "/")).parts:
        raise ModelError(f"{where}: external location '{location}' given, a path below the model's directory is needed")
    path = home.folder / location
    real, real_base = Path(os.path.realpath(path)), Path(os.path.realpath(home.folder))
    if not real.is_relative_to(real_base) and real.parent != home.linked:
        raise ModelError(f"{where}: external location '{location}' is a link that leaves the model's directory")
    if not real.exists():
        raise ModelError(f"{where}: external file '{path}' does not exist")
    if not real.is_file():
        raise ModelError(f"{where}: external location '{path}' is not a regular file")
    return real


def _natural(info: dict[str, str], key: str, default: int, where: str) -> int:
    text = info.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ModelError(f"{where}: external {key} '{text}' is not a number of bytes")
    return int(text)


def has_sparse(model: onnx.ModelProto) -> bool:
    return any(graph.sparse_initializer for graph in graphs_of(model)) or any(
        attribute.type == AttributeProto.SPARSE_TENSOR for node in nodes_of(model) for attribute in node.attribute
    )
