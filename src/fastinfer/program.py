# SPDX-License-Identifier: Apache-2.0
"""The serializable form of a compiled model, and its file: one safetensors file, tensors = constants, metadata = JSON.

Loading needs numpy only; constants are mapped from the file, not copied. Nothing in a file is trusted: the layout is
checked here, the program itself by the native ``Program``.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastinfer import _core
from fastinfer.call import Call
from fastinfer.errors import ModelError

FORMAT = 1
ALIGN = 64  # packed weights are read with aligned loads
# safetensors names for what it knows; anything else is stored as bytes and typed by our own metadata.
_NAMES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64",
          12: "U32", 13: "U64", 16: "BF16"}  # fmt: skip


@dataclass
class Graph:
    """One graph: values are numbered, nodes are in order.

    nodes: ``{"op", "domain", "name", "inputs", "outputs", "attrs": {name: [kind, value]}}`` with kinds i, f, s, ints,
    floats, strings, tensor (a key of ``Program.tensors``) and graph (an index into ``subgraphs``).
    inputs, outputs: ``{"value", "name", "dtype", "dims"}``; dims is None (unknown rank) or ints and symbol names.
    constants: value number → key of ``Program.tensors``.
    """

    n_values: int
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    constants: dict[int, str]
    nodes: list[dict[str, Any]]
    subgraphs: list[Graph] = field(default_factory=list)
    expected: dict[int, tuple[int, tuple]] = field(
        default_factory=dict
    )  # value → type code, extents; for check.py only


@dataclass
class Program:
    """A lowered model: the graph, its constants by key, and notes that travel with it (names, output structure)."""

    graph: Graph
    tensors: dict[str, Any]  # ndarray, or {"dtype", "shape", "packed": {layout: uint8 array}, maybe "dense"}
    notes: dict[str, Any] = field(default_factory=dict)
    # The form for sequences of different lengths: "graph", on the same tensors, and "inputs", "outputs", "auxiliary" of
    # passes.pack_sequences; or "refused", the reason why there is none.
    packed: dict[str, Any] = field(default_factory=dict)

    def packed_native(self, main: _core.Program) -> _core.Program:
        """Build the packed form on the constants that `main` holds, packed weights included. Nothing may run by reference:
        the bits of a row then depend on the other rows."""
        held = {k: {n: x for n, x in c.items() if n != "value"} for k, c in _held_constants(self.graph, main)}
        return _native(self.packed["graph"], {**self.tensors, **held}, None, True)

    def native(self, fallback: Callable[[], Callable] | None, strict: bool) -> _core.Program:
        """Build the native program. ``fallback`` makes, when first needed, the function that runs a node by reference."""
        return _native(self.graph, self.tensors, fallback, strict)

    def shapes_only(self) -> _core.Program:
        """A native program that plans, for another device that runs it, and packs no weights."""
        return _native(self.graph, self.tensors, None, False, shapes_only=True)

    def call(self) -> Call | None:
        """How the torch module that this was compiled from is called; None for other models."""
        noted = self.notes.get("call")
        return None if noted is None else Call.from_dict(noted, len(self.graph.outputs))

    def defaults(self) -> dict[str, Any]:
        """Name → array of the inputs that a caller may leave out."""
        defaults = self.notes.get("defaults", {})
        if unknown := defaults.keys() - {p["name"] for p in self.graph.inputs}:
            raise ModelError(f"a default is given for '{min(unknown)}', which is no input")
        return {name: _dense(self.tensors, key) for name, key in defaults.items()}

    def release_constants(self) -> None:
        """Forget the constants that the native program now holds (it may keep only their packed form). A subgraph's
        constants and attribute tensors are kept: several native programs share them."""
        kept = {k for g in self.graph.subgraphs for k in _keys(g)} | set(_attribute_keys(self.graph))
        for key in self.graph.constants.values():
            if key not in kept:
                self.tensors[key] = None


def _native(
    graph: Graph, tensors: dict[str, Any], fallback: Any, strict: bool, shapes_only: bool = False
) -> _core.Program:
    def attr(pair: list) -> list:
        return ["tensor", _dense(tensors, pair[1])] if pair[0] == "tensor" else pair

    nodes = [{**n, "attrs": {k: attr(v) for k, v in n["attrs"].items()}} for n in graph.nodes]
    spec = {
        "n_values": graph.n_values,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "constants": [_constant(value, tensors, key) for value, key in graph.constants.items()],
        "nodes": nodes,
        "subprograms": [_native(g, tensors, fallback, strict) for g in graph.subgraphs],
    }
    runner: list[Callable] = []

    def run_node(index: int, inputs: list) -> list:
        if not runner:
            if fallback is None:
                raise ModelError(
                    f"node '{nodes[index]['name']}' ({nodes[index]['op']}) has no native form and no fallback"
                )
            runner.append(fallback()(nodes))
        return runner[0](index, inputs, [o >= 0 for o in nodes[index]["outputs"]])

    return _core.Program(spec, run_node, strict, shapes_only)


def _constant(value: int, tensors: dict[str, Any], key: str) -> dict[str, Any]:
    if key not in tensors:
        raise ModelError(f"constant '{key}' is not in the file")
    held = tensors[key]
    return {"value": value, **held} if isinstance(held, dict) else {"value": value, "dense": held}


def _dense(tensors: dict[str, Any], key: str) -> Any:
    held = tensors.get(key)
    array = held.get("dense") if isinstance(held, dict) else held
    if array is None:
        raise ModelError(f"constant '{key}' is needed dense, but the file does not hold it so")
    return array


def _attribute_keys(graph: Graph) -> list[str]:
    own = [pair[1] for n in graph.nodes for pair in n["attrs"].values() if pair[0] == "tensor"]
    return [*own, *(k for g in graph.subgraphs for k in _attribute_keys(g))]


# ------------------------------------------------------------------------------------------------------------- files


def _graph_json(g: Graph) -> dict[str, Any]:
    return {
        "n_values": g.n_values,
        "inputs": g.inputs,
        "outputs": g.outputs,
        "constants": [[v, k] for v, k in g.constants.items()],
        "nodes": g.nodes,
        "subgraphs": [_graph_json(s) for s in g.subgraphs],
    }


def _graph_from_json(d: Any, depth: int = 0) -> Graph:
    if depth > 64:
        raise ModelError("subgraphs are nested deeper than 64")
    return Graph(
        int(d["n_values"]),
        list(d["inputs"]),
        list(d["outputs"]),
        {int(v): str(k) for v, k in d["constants"]},
        list(d["nodes"]),
        [_graph_from_json(s, depth + 1) for s in d["subgraphs"]],
    )


def save(program: Program, native: _core.Program, path: str | os.PathLike) -> None:
    """Write the program with its constants as the native side holds them now (packed weights in packed form)."""
    entries: list[tuple[str, str, list[int], np.ndarray]] = []
    typed: dict[str, list] = {}

    def add(name: str, array: np.ndarray, code: int) -> None:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        known = _NAMES.get(code)
        entries.append((name, known or "U8", list(array.shape) if known else [raw.size], raw))

    held = {k: v for k, v in _held_constants(program.graph, native)}
    objects: dict[str, Any] = {}
    for key, tensor in program.tensors.items():
        entry = held.get(key)
        if entry is None:  # an attribute's tensor, or a subgraph's constant: dense
            entry = tensor if isinstance(tensor, dict) else _describe(tensor)
        if entry["dtype"] == 255:
            objects[key] = _strings(key, entry["dense"])
            continue
        typed[key] = [entry["dtype"], list(entry["shape"])]
        if "dense" in entry:
            add(key, entry["dense"], entry["dtype"])
        for layout, raw in entry.get("packed", {}).items():
            add(f"{key}@{layout}", raw, 2)
    packed = {k: _graph_json(v) if k == "graph" else v for k, v in program.packed.items()}
    meta = {"format": FORMAT, "graph": _graph_json(program.graph), "types": typed, "strings": objects,
            "notes": program.notes, "packed": packed, "isa": native.isa}  # fmt: skip
    _write(path, entries, {"fastinfer": json.dumps(meta, separators=(",", ":"))})


def _describe(array: Any) -> dict[str, Any]:
    if not isinstance(array, np.ndarray) or array.dtype == object:
        return {"dtype": 255, "shape": [], "dense": array}
    return {"dtype": _core.dtype_code(array.dtype), "shape": list(array.shape), "dense": array}


def _strings(key: str, array: Any) -> list:
    if not (isinstance(array, np.ndarray) and all(isinstance(s, str | bytes) for s in array.reshape(-1))):
        raise ModelError(f"constant '{key}' is a {type(array).__name__}, which a program file cannot hold")
    return [list(array.shape), [s.decode() if isinstance(s, bytes) else s for s in array.reshape(-1).tolist()]]


def _held_constants(graph: Graph, native: _core.Program) -> list[tuple[str, dict]]:
    by_value = {c["value"]: c for c in native.constants()}
    shared = [k for g in graph.subgraphs for k in _keys(g)]  # a constant that a subgraph also reads stays dense
    return [(key, by_value[v]) for v, key in graph.constants.items() if v in by_value and key not in shared]


def _keys(graph: Graph) -> list[str]:
    return [*graph.constants.values(), *(k for g in graph.subgraphs for k in _keys(g))]


def _write(path: str | os.PathLike, entries: list, metadata: dict[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    offset, pads, parts = 0, 0, []
    for name, dtype, shape, raw in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + raw.size]}
        parts.append(raw)
        offset += raw.size
        if gap := -offset % ALIGN:  # the format allows no holes, so the padding is a tensor
            header[f"_pad{pads}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [offset, offset + gap]}
            parts.append(np.zeros(gap, np.uint8))
            offset, pads = offset + gap, pads + 1
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for raw in parts:
                f.write(raw.data)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike) -> Program:
    """Map a saved program. Raises ModelError for anything that is not a well-formed one."""
    try:
        with open(path, "rb") as f:
            data = np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except ValueError as e:
        raise ModelError(f"'{os.fspath(path)}' is not a fastinfer program: {e}") from e
    try:
        return _parse(data)
    except ModelError as e:
        raise ModelError(f"'{os.fspath(path)}': {e}") from e
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, struct.error, RecursionError) as e:
        raise ModelError(f"'{os.fspath(path)}' is not a fastinfer program: {type(e).__name__}: {e}") from e


def _parse(data: np.ndarray) -> Program:
    if data.size < 8:
        raise ModelError(f"the file has {data.size} bytes")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    if length > min(data.size - 8, 256 << 20):
        raise ModelError(f"the header claims {length} bytes in a file of {data.size}")
    header = json.loads(data[8 : 8 + length].tobytes())
    if "fastinfer" not in header.get("__metadata__", {}):
        raise ModelError("a safetensors file, but not a fastinfer program")
    meta = json.loads(header.pop("__metadata__")["fastinfer"])
    if meta["format"] != FORMAT:
        raise ModelError(f"program format {meta['format']}; this version reads format {FORMAT}")
    body = data[8 + length :]
    tensors: dict[str, Any] = {}
    for key, (code, dims) in meta["types"].items():
        shape = [int(d) for d in dims]
        if any(d < 0 for d in shape):
            raise ModelError(f"constant '{key}' has shape {shape}")
        tensors[key] = {"dtype": int(code), "shape": shape, "packed": {}}
    for key, (dims, strings) in meta["strings"].items():
        tensors[key] = np.array(strings, dtype=object).reshape(dims)
    for name, entry in header.items():
        if name.startswith("_pad"):
            continue
        begin, end = (int(x) for x in entry["data_offsets"])
        if not 0 <= begin <= end <= body.size:
            raise ModelError(f"tensor '{name}' lies at {begin}..{end} of {body.size} bytes")
        key, _, layout = name.partition("@")
        if not isinstance(tensors.get(key), dict):
            raise ModelError(f"tensor '{name}' is not described")
        raw, held = body[begin:end], tensors[key]
        if layout:
            held["packed"][layout] = raw
            continue
        dtype = _core.numpy_dtype(held["dtype"])
        count = 1
        for d in held["shape"]:
            count *= d
        if count * dtype.itemsize != raw.size:
            raise ModelError(
                f"tensor '{name}' has {raw.size} bytes, {dtype}{held['shape']} needs {count * dtype.itemsize}"
            )
        held["dense"] = raw.view(dtype).reshape(held["shape"]) if count else np.zeros(held["shape"], dtype)
    packed = {k: _graph_from_json(v) if k == "graph" else v for k, v in meta.get("packed", {}).items()}
    return Program(_graph_from_json(meta["graph"]), tensors, dict(meta["notes"]), packed)
