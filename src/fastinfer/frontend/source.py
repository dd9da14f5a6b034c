# SPDX-License-Identifier: Apache-2.0
"""path | bytes | ModelProto → a parsed ModelProto and where its external data may come from."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]  # by protobuf's version

from fastinfer.errors import ModelError

# protobuf's own limit for one message.
MAX_PROTO_BYTES = 2**31 - 1


class Home(NamedTuple):
    """Where a model's external data may be: below `folder`; if its file is a link, also directly in `linked`, where the
    real file is."""

    folder: Path
    linked: Path | None


def read_model(source: str | os.PathLike | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, Home | None]:
    """Reads a model. Raises ModelError when it is missing, not a file, or not a model."""
    if isinstance(source, onnx.ModelProto):
        return source, None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return parse_model(bytes(source), "model bytes"), None
    path = Path(os.fspath(source))
    linked = Path(os.path.realpath(path)).parent if path.is_symlink() else None
    return parse_model(_read_file(path), f"'{path}'"), Home(path.parent, linked)


def parse_model(data: bytes, what: str) -> onnx.ModelProto:
    if len(data) > MAX_PROTO_BYTES:
        raise ModelError(f"{what}: {len(data)} bytes given, a protobuf message has at most {MAX_PROTO_BYTES}")
    if other := _other_format(data):
        raise ModelError(f"{what}: {other}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{what}: {len(data)} bytes given are not an ONNX model: {error}") from None
    if not model.HasField("graph"):
        raise ModelError(f"{what}: {len(data)} bytes given hold no graph, so this is not an ONNX model")
    return model


def _other_format(data: bytes) -> str:
    """What a file is that is no ONNX model, and how to use it; "" when that cannot be told."""
    if data[:4] == b"PK\x03\x04":
        try:
            names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            return "a damaged zip archive, not an ONNX model"
        if any("/code/" in name for name in names):
            return "a TorchScript archive, not an ONNX model: compile the torch.nn.Module it was made from"
        if any(name.endswith(("/data.pkl", "\\data.pkl")) and "/data/" not in name for name in names) and not any(
            "model.json" in name or "exported_program" in name for name in names
        ):
            return (
                "a file of torch.save (weights), not an ONNX model: load it into its torch.nn.Module and compile that"
            )
        if any("model.json" in name or "exported_program" in name for name in names):
            return "an exported torch program, not an ONNX model: compile(torch.export.load(path))"
        return "a zip archive, not an ONNX model"
    if len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        if b'"fastinfer"' in data[8:4096]:
            return "a program that fastinfer saved, not an ONNX model: load it with fastinfer.load(path)"
        return "a safetensors file of weights, not an ONNX model: load it into its torch.nn.Module and compile that"
    return ""


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
