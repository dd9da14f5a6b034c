# SPDX-License-Identifier: Apache-2.0
"""path | bytes | onnx.ModelProto | onnx_ir.Model → a checked, inlined onnx_ir.Model of opset 26."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from fastinfer.errors import ModelError, UnsupportedError
from fastinfer.frontend import check_graph, check_tensors
from fastinfer.frontend import source as sources
from fastinfer.frontend.expand import expand_functions
from fastinfer.frontend.upgrade import upgrade_model

Source: TypeAlias = str | os.PathLike | bytes | onnx.ModelProto | ir.Model


# Keys of Model.meta: inputs that load() made constants though a caller may give them; tensors of inputs kept optional.
OVERRIDABLE, DEFAULTS = "fastinfer.overridable", "fastinfer.defaults"


def load(source: Source, *, native: Collection[str] | None = None, overridable: Collection[str] = ()) -> ir.Model:
    """Loads a model and settles everything that depends on its age.

    The result has one opset (26), no model-local functions, no sparse tensors and sorted graphs. An onnx_ir.Model is not
    changed; what a caller could still write to (torch parameters, numpy arrays) is copied. Initializers that are also listed as inputs are constants, except those named
    in `overridable`: these stay inputs, after the others, and ``model.meta[DEFAULTS]`` holds their tensors by name. From IR
    version 4 on a caller may override the rest too: ``model.meta[OVERRIDABLE]`` lists them, as values.
    native: operators ("Conv", "domain::Op") that need no expansion into their function bodies; by default those
    of fastinfer._core.

    Raises ModelError when the model is malformed, UnsupportedError when it needs what fastinfer does not have.
    """
    model = own_tensors(_clone(source)) if isinstance(source, ir.Model) else from_proto(source)
    check_graph.check_texts(model.graph)
    for function in model.functions.values():
        check_graph.check_texts(function)
    _normalise_domains(model)
    check_graph.check_opset(model.opset_imports)
    model.meta[DEFAULTS] = {}
    model.meta[OVERRIDABLE] = _constant_inputs(model, overridable)
    local = {(domain, name) for domain, name, _ in model.functions}
    check_graph.check_values(model.graph)
    check_graph.check_nodes(model.graph, model.opset_imports, local)
    for function in model.functions.values():
        check_graph.check_opset(function.opset_imports)
        check_graph.check_values(function)
        check_graph.check_nodes(function, function.opset_imports, local)
    inline_functions(model)
    upgrade_model(model)
    expand_functions(model, native)
    model.graph.sort()
    return model


def from_proto(source: str | os.PathLike | bytes | onnx.ModelProto) -> ir.Model:
    """The onnx_ir form of a serialized model, with every tensor checked. External data stays memory-mapped."""
    if not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, onnx.ModelProto)):
        raise ModelError(
            f"cannot load a {type(source).__name__}: a path, bytes, onnx.ModelProto or onnx_ir.Model is needed"
        )
    proto, home = sources.read_model(source)
    if isinstance(source, onnx.ModelProto) and check_tensors.has_sparse(proto):
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
    check_tensors.check_tensors(proto, home)
    try:
        with _quiet("onnx_ir"):  # what it warns about, check_graph refuses
            return ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(f"malformed model: {_root(error)}") from None


def _clone(model: ir.Model) -> ir.Model:
    try:
        return model.clone()
    except ValueError as error:
        raise ModelError(f"malformed model: {_root(error)}") from None


def own_tensors(model: ir.Model) -> ir.Model:
    """Copies tensors whose memory belongs to someone who may write to it: a module that trains on must not change what was
    compiled. Mapped files and parsed protobufs are left as they are. Tensors that share memory share the copy."""
    copies: dict[tuple, tuple[Any, Any]] = {}  # with the original, so that no other can come to lie at its address

    def own(tensor: Any) -> Any:
        if tensor is None or isinstance(tensor, ir.ExternalTensor | ir.TensorProtoTensor | ir.StringTensor):
            return tensor
        array = tensor.numpy()
        key = (array.ctypes.data, array.shape, array.strides, tensor.dtype)
        if key not in copies:
            copies[key] = array, array.copy()
        return ir.Tensor(copies[key][1], dtype=tensor.dtype, name=tensor.name)

    for graph in [model.graph, *model.graph.subgraphs(), *(f.graph for f in model.functions.values())]:
        for value in graph.initializers.values():
            value.const_value = own(value.const_value)
        for node in graph:
            for output in node.outputs:
                output.const_value = own(output.const_value)
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, own(attribute.as_tensor()))
    return model


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _normalise_domains(model: ir.Model) -> None:
    """'ai.onnx' is another spelling of the default domain."""
    holders: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for holder in holders:
        if "ai.onnx" in holder.opset_imports:
            version = holder.opset_imports.pop("ai.onnx")
            holder.opset_imports.setdefault("", version)
        for node in holder.all_nodes():
            if node.domain == "ai.onnx":
                node.domain = ""


def _constant_inputs(model: ir.Model, overridable: Collection[str]) -> list[ir.Value]:
    """Makes constants of the initializers that are also inputs; returns what callers may override all the same. Below
    IR version 4 every initializer had to be listed so, which says nothing."""
    graph = model.graph
    required, optional, constants = [], [], []
    for value in graph.inputs:
        initializer = graph.initializers.get(value.name or "")
        tensor = None if initializer is None else initializer.const_value
        if tensor is None:
            required.append(value)
            continue
        if value.dtype is not None and value.dtype != tensor.dtype:
            raise ModelError(f"initializer '{value.name}' is {tensor.dtype}, the input it belongs to is {value.dtype}")
        if value.shape is not None and not _fits(value.shape, tensor.shape):
            raise ModelError(f"initializer '{value.name}' has shape {tensor.shape}, its input has {value.shape}")
        shape = ir.Shape(tensor.shape.numpy()) if value.shape is None else value.shape
        declared = ir.Value(name=value.name, type=ir.TensorType(tensor.dtype), shape=shape)
        if value.name in overridable:
            del graph.initializers[str(value.name)]
            value.type, value.shape, value.const_value = declared.type, declared.shape, None
            model.meta[DEFAULTS][value.name] = tensor
            optional.append(value)
        else:
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            constants.append(declared)
    if unknown := set(overridable) - {v.name for v in optional}:
        names = ", ".join(f"'{v.name}'" for v in [*optional, *constants]) or "none"
        raise ModelError(
            f"overridable: {', '.join(map(repr, sorted(unknown)))}; inputs that have an initializer: {names}"
        )
    graph.inputs[:] = [*required, *optional]
    return constants if model.ir_version >= 4 else []


def _fits(declared: ir.Shape, actual: ir.ShapeProtocol) -> bool:
    return len(declared) == len(actual) and all(not isinstance(d, int) or d == a for d, a in zip(declared, actual))


def inline_functions(model: ir.Model) -> None:
    """Replaces calls of model-local functions by their bodies; each node keeps the opset it was written for."""
    holders: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for holder in holders:
        version = holder.opset_imports.get("")
        for node in holder.all_nodes():
            if node.domain == "" and node.version is None:
                node.version = version
    if not model.functions:
        return
    for function in model.functions.values():
        _separate_outputs(function)
        for domain, version in list(function.opset_imports.items()):  # the inliner wants them equal
            function.opset_imports[domain] = model.opset_imports.setdefault(domain, version)
    try:
        InlinePass()(model)
    except (ValueError, ir.passes.PassError, ir.passes.PreconditionError) as error:
        raise UnsupportedError(f"model-local functions cannot be inlined: {_root(error)}") from None
    model.functions.clear()


def _separate_outputs(function: ir.Function) -> None:
    """The inliner renames outputs in place, so none may be an input or occur twice."""
    seen = set(function.inputs)
    for i, value in enumerate(function.outputs):
        if value in seen:
            copy = ir.node("Identity", [value], version=check_graph.MAX_OPSET)
            function.append(copy)
            function.outputs[i] = copy.outputs[0]
        seen.add(value)
