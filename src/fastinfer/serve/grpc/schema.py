# SPDX-License-Identifier: Apache-2.0
"""The protocol's messages and service, as protobuf descriptors made from the tables below when this is imported.

Nothing is generated or committed, and the descriptors are in a pool of their own, so that a process can hold other
generated modules of the same package as well (tritonclient's in the tests).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from fastinfer.serve.grpc.tables import ENUMS, MESSAGES, METHODS

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
FILE = "fastinfer/inference.proto"
# Calls that are streams both ways, with the messages that they carry; every other call X takes an XRequest.
STREAMS = {"ModelStreamInfer": ("ModelInferRequest", "ModelStreamInferResponse")}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE, "float": _Field.TYPE_FLOAT, "int64": _Field.TYPE_INT64, "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32, "uint32": _Field.TYPE_UINT32, "bool": _Field.TYPE_BOOL, "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}  # fmt: skip


def _rows(table: str) -> Iterator[tuple[str, list[list[str]]]]:
    """("Message", [["name", "string", "1"], …]) of each line of a table."""
    for line in table.replace("\n    ", " ").strip().splitlines():
        name, _, rest = line.partition(":")
        yield name.strip(), [field.split() for field in rest.split(",") if field.strip()]


class _File:
    """One .proto file in the making. A nested message is called by its path: "ModelInferRequest.InferInputTensor"."""

    def __init__(self) -> None:
        self.proto = descriptor_pb2.FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
        self.messages: dict[str, descriptor_pb2.DescriptorProto] = {}
        self.enums: set[str] = set()

    def declare(self, path: str) -> None:
        scope, _, name = path.rpartition(".")
        into = self.messages[scope].nested_type if scope else self.proto.message_type
        self.messages[path] = into.add(name=name)

    def declare_enum(self, path: str, values: list[str]) -> None:
        scope, _, name = path.rpartition(".")
        enum = (self.messages[scope] if scope else self.proto).enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
        self.enums.add(path)

    def field(self, path: str, name: str, kind: str, number: str, oneof: str = "") -> None:
        """kind: a scalar, a message or an enum; "*T" repeated, "{T}" a map of strings, ".T" nested in this message."""
        message = self.messages[path]
        field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
        if kind.startswith("*"):
            field.label, kind = _Field.LABEL_REPEATED, kind[1:]
        if kind.startswith("{"):
            field.label, kind = _Field.LABEL_REPEATED, self._map_entry(path, name, kind[1:-1])
        self._type(path, field, kind)
        if oneof:
            choices = [o.name for o in message.oneof_decl]
            if oneof not in choices:
                message.oneof_decl.add(name=oneof)
                choices.append(oneof)
            field.oneof_index = choices.index(oneof)

    def _type(self, path: str, field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
            return
        target = path + kind if kind.startswith(".") else kind
        field.type = _Field.TYPE_ENUM if target in self.enums else _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{target}"

    def _map_entry(self, path: str, name: str, value: str) -> str:
        entry = "." + "".join(part.capitalize() for part in name.split("_")) + "Entry"
        if path + entry not in self.messages:
            self.declare(path + entry)
            self.messages[path + entry].options.map_entry = True
            self.field(path + entry, "key", "string", "1")
            self._type(path, self.messages[path + entry].field.add(name="value", number=2, label=1), value)
        return entry


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = _File()
    rows = list(_rows(MESSAGES))
    for path, _ in rows:
        file.declare(path)
    for path, values in _rows(ENUMS):
        file.declare_enum(path, [value for (value,) in values])
    for path, fields in rows:
        for field in fields:
            file.field(path, *field)
    service = file.proto.service.add(name=SERVICE.rpartition(".")[2])
    for name in METHODS:
        streams = name in STREAMS
        request, response = STREAMS.get(name, (f"{name}Request", f"{name}Response"))
        service.method.add(
            name=name, input_type=f".{PACKAGE}.{request}", output_type=f".{PACKAGE}.{response}",
            client_streaming=streams, server_streaming=streams,
        )  # fmt: skip
    return file.proto


FILE_PROTO = _file()
POOL = descriptor_pool.DescriptorPool()
POOL.AddSerializedFile(FILE_PROTO.SerializeToString())


def message(name: str) -> Any:
    """The class of a message: ``message("ModelInferRequest")``. Raises KeyError."""
    cls: type[Message] = message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    return cls
