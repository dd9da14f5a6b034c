# SPDX-License-Identifier: Apache-2.0
"""Nodes without a native kernel, one at a time: by numpy of our own, else by onnx.reference, else by function body.

Values: tensors are ndarrays (strings: object arrays of str), a sequence is a list, an empty optional is None, a map is
a dict. The operators are those of the newest opset; the front end has settled all differences.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import onnx
from onnx import AttributeProto as Attribute
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun, RuntimeContextError, RuntimeImplementationError

from fastinfer.errors import FastinferError, InputError, UnsupportedError
from fastinfer.fallback_ops import OPS

OPSETS = {"": 26, "ai.onnx.ml": 5, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1}

# One evaluator per set of input types and shapes; a stream of new shapes must not fill the memory.
MAX_EVALUATORS = 64

_KINDS = {"i": Attribute.INT, "f": Attribute.FLOAT, "s": Attribute.STRING, "ints": Attribute.INTS,
          "floats": Attribute.FLOATS, "strings": Attribute.STRINGS, "tensor": Attribute.TENSOR}  # fmt: skip

Run = Callable[[list[Any]], Any]


class NodeSpecDict(TypedDict):
    """One node as the Program holds it; attrs: name → [kind, value]."""

    op: str
    domain: str
    name: str
    attrs: dict[str, list]


class Fallback:
    """Runs nodes of one graph by reference. What a node needs is prepared at its first call and kept."""

    def __init__(self, nodes: list[NodeSpecDict]) -> None:
        self._nodes = nodes
        self._runs: dict[int, Run] = {}

    def __call__(self, node_index: int, inputs: list[Any], wanted: list[bool]) -> list[Any]:
        """The node's outputs for these inputs (None: left out); an unwanted output may be None.

        Raises UnsupportedError when nothing implements the operator, InputError when it rejects its inputs.
        """
        node = self._nodes[node_index]
        run = self._runs.get(node_index)
        try:
            if run is None:
                run = self._runs[node_index] = runner(node, len(wanted))
            with np.errstate(all="ignore"):
                outputs = run([_given(value) for value in inputs])
        except FastinferError as error:
            raise type(error)(f"{_where(node)}: {error}") from error
        except Exception as error:
            cause = error.__cause__ or error
            given = ", ".join(_form(value) for value in inputs)
            raise InputError(f"{_where(node)} ({given}): {type(cause).__name__}: {cause}") from error
        made = [_made(value) for value in outputs]
        return made[: len(wanted)] + [None] * (len(wanted) - len(made))


def runner(node: NodeSpecDict, n_outputs: int) -> Run:
    """A function inputs → outputs for one node. Raises UnsupportedError."""
    domain, op = node["domain"], node["op"]
    if any(kind == "graph" for kind, _ in node["attrs"].values()):
        raise UnsupportedError("operators with subgraphs have no reference form")
    if own := OPS.get((domain, op)):
        attributes = {name: value for name, (_, value) in node["attrs"].items()}
        return lambda inputs: own(inputs, n_outputs, **attributes)
    if domain == "fastinfer":
        return _function_runner(node, n_outputs)
    proto = node_proto(node, (), n_outputs)
    implementation = _implementation(domain, op)
    if implementation is None:
        return _EvaluatorRun(proto)
    instance = implementation(proto, {"log": lambda *args: None, "opsets": OPSETS, "new_ops": None, "verbose": 0})
    return lambda inputs: instance.run(*_trimmed(inputs))


def refusal(node: NodeSpecDict, n_outputs: int) -> str | None:
    """Why nothing here can run the node; None where something may."""
    try:
        runner(node, n_outputs)
    except UnsupportedError as error:
        return str(error)
    except Exception:  # its attributes: judged when it runs
        return None
    return None


@functools.lru_cache(maxsize=1024)
def _implementation(domain: str, op: str) -> type[OpRun] | None:
    """onnx.reference's class for the operator, None when only a function body exists."""
    if domain not in OPSETS:
        raise UnsupportedError(f"no native kernel and no reference implementation of {domain}.{op}")
    if domain == "":
        from onnx.reference.ops import load_op
    elif domain == "ai.onnx.ml":
        from onnx.reference.ops.aionnxml import load_op
    elif domain == "ai.onnx.preview":
        from onnx.reference.ops.aionnx_preview import load_op
    else:
        from onnx.reference.ops.aionnx_preview_training import load_op
    try:
        found = load_op(domain, op, OPSETS[domain], **({"evaluator_cls": ReferenceEvaluator} if domain == "" else {}))
    except RuntimeContextError:
        return None
    except (RuntimeImplementationError, NotImplementedError) as error:
        raise UnsupportedError(f"no native kernel and no reference implementation of {op}") from error
    return found if isinstance(found, type) else None


def node_proto(node: NodeSpecDict, inputs: tuple[str, ...], n_outputs: int) -> onnx.NodeProto:
    proto = helper.make_node(
        node["op"], list(inputs), [f"y{i}" for i in range(n_outputs)], name=node["name"], domain=node["domain"]
    )
    for name, (kind, value) in node["attrs"].items():
        if kind == "tensor":
            value = tensor_proto(value)
        proto.attribute.append(helper.make_attribute(name, value, attr_type=_KINDS[kind]))
    return proto


def tensor_proto(array: np.ndarray) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(array))


class _EvaluatorRun:
    """Operators that onnx.reference only knows as a function of their input types: one evaluator per signature."""

    def __init__(self, proto: onnx.NodeProto) -> None:
        self._proto = proto
        self._evaluators: dict[tuple, ReferenceEvaluator] = {}

    def __call__(self, inputs: list[Any]) -> list[Any]:
        key = tuple(_form(value) for value in inputs)
        if key not in self._evaluators:
            if len(self._evaluators) >= MAX_EVALUATORS:
                self._evaluators.clear()
            self._evaluators[key] = self._make(inputs)
        feeds = {f"x{i}": value for i, value in enumerate(inputs) if value is not None}
        return self._evaluators[key].run(None, feeds)

    def _make(self, inputs: list[Any]) -> ReferenceEvaluator:
        node = onnx.NodeProto()
        node.CopyFrom(self._proto)
        node.input[:] = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
        ports = [
            helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for i, value in enumerate(inputs)
            if value is not None
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        graph = helper.make_graph([node], "fallback", ports, outputs)
        imports = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=imports))


def _function_runner(node: NodeSpecDict, n_outputs: int) -> Run:
    """A fused operator, by its function body in standard operators; one per set of inputs and ranks."""
    import onnx_ir as ir

    from fastinfer.passes import fused

    evaluators: dict[tuple, ReferenceEvaluator] = {}

    def build(inputs: list[Any]) -> ReferenceEvaluator:
        values = [
            None if a is None else ir.Value(name=f"x{i}", shape=ir.Shape(a.shape), type=ir.TensorType(_ir_type(a)))
            for i, a in enumerate(inputs)
        ]
        attributes = [ir.serde.deserialize_attribute(a) for a in node_proto(node, (), n_outputs).attribute]
        call = ir.Node("fastinfer", node["op"], values, attributes, num_outputs=n_outputs, name=node["name"])
        return ReferenceEvaluator(ir.serde.serialize_function(fused.body(call)))

    def run(inputs: list[Any]) -> Any:
        key = tuple(None if a is None else (a.ndim, a.dtype) for a in inputs)
        if key not in evaluators:
            evaluators[key] = build(inputs)
        evaluator = evaluators[key]
        feeds = zip(evaluator.input_names, inputs, strict=True)
        return evaluator.run(None, {name: value for name, value in feeds if value is not None}, attributes={})

    return run


def _ir_type(array: np.ndarray) -> Any:
    import onnx_ir as ir

    return ir.DataType(helper.np_dtype_to_tensor_dtype(array.dtype))


# ------------------------------------------------------------------------------------------------------ values


def _trimmed(inputs: list[Any]) -> list[Any]:
    n = len(inputs)
    while n and inputs[n - 1] is None:
        n -= 1
    return inputs[:n]


def _given(value: Any) -> Any:
    """What the reference expects: str, not bytes, in string tensors."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "S" or (value.dtype == object and any(isinstance(v, bytes) for v in value.flat)):
            decoded = [v.decode("utf-8") if isinstance(v, bytes) else v for v in value.flat]
            return _objects(decoded, value.shape)
        return value
    if isinstance(value, list):
        return [_given(v) for v in value]
    return value


def _made(value: Any) -> Any:
    """What the engine expects: arrays (not scalars), strings as objects, sequences as lists."""
    if isinstance(value, (list, tuple)):
        return [_made(v) for v in value]
    if value is None or isinstance(value, dict):
        return value
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "US" else array


def _objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return "none" if value is None else type(value).__name__


def _where(node: NodeSpecDict) -> str:
    kind = f"{node['domain']}.{node['op']}" if node["domain"] else node["op"]
    return f"{kind} '{node['name']}', run by reference"
