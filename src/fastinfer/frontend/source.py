# SPDX-License-Identifier: Apache-2.0
"""path | bytes | ModelProto → a parsed ModelProto and the directory its external data may come from."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fastinfer.errors import ModelError

# protobuf's own limit for one message.
MAX_PROTO_BYTES = 2**31 - 1


def read_model(source: str | os.PathLike | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """Reads a model. Raises ModelError when it is missing, not a file, or not a model."""
    if isinstance(source, onnx.ModelProto):
        return source, None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return parse_model(bytes(source), "model bytes"), None
    path = Path(os.fspath(source))
    return parse_model(_read_file(path), f"'{path}'"), path.parent


def parse_model(data: bytes, what: str) -> onnx.ModelProto:
    if len(data) > MAX_PROTO_BYTES:
        raise ModelError(f"{what}: {len(data)} bytes given, a protobuf message has at most {MAX_PROTO_BYTES}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{what}: {len(data)} bytes given are not an ONNX model: {error}") from None
    if not model.HasField("graph"):
        raise ModelError(f"{what}: {len(data)} bytes given hold no graph, so this is not an ONNX model")
    return model


def _read_file(path: Path) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ModelError(f"'{path}': a regular file with an ONNX model is needed")
        if info.st_size > MAX_PROTO_BYTES:
            raise ModelError(f"'{path}': {info.st_size} bytes given, a protobuf message has at most {MAX_PROTO_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}': cannot be read: {error}") from None
