# SPDX-License-Identifier: Apache-2.0
"""HTTP by hand: what no client library would send."""

import json
import socket
from dataclasses import dataclass

import numpy as np


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """Every error is {"error": text}."""
        assert self.status >= 400 and self.headers["content-type"] == "application/json"
        (text,) = self.json.values()
        assert list(self.json) == ["error"] and isinstance(text, str) and text
        return text


class Connection:
    def __init__(self, server, timeout=10.0):
        self.socket = socket.create_connection((server.host, server.port), timeout)
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        data = self.socket.recv(1 << 16)
        self._buffer += data
        return bool(data)

    def answer(self, head=False):
        """The next response, or None when the connection ends first."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                assert not self._buffer
                return None
        top, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        length = 0 if head else int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            assert self._more(), "the answer is cut off"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(first.split()[1]), headers, body)

    def ended(self):
        """Whether the server closes, with nothing more to say."""
        try:
            return not self._more() and not self._buffer
        except ConnectionResetError:
            return True


def request(path, body=b"", method="POST", headers=(), length=True):
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{n}: {v}" for n, v in headers)]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def ask(server, data, head=False):
    """The answer to one request on a connection of its own."""
    with Connection(server) as c:
        c.send(data)
        return c.answer(head)


def chunked(*chunks):
    return b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"


ROW = np.arange(64, dtype=np.float32)


def binary(inputs, blobs=b"", header=None, path="/v2/models/mlp/infer", extra=(), **root):
    """An infer request with a JSON part and bytes behind it. header: of Inference-Header-Content-Length, if not true."""
    text = json.dumps({"inputs": inputs, **root}).encode()
    value = len(text) if header is None else header
    return request(path, text + blobs, headers=[("inference-header-content-length", value), *extra])


def mlp_input(**changes):
    return {"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}, **changes}


GOOD = binary([mlp_input()], ROW.tobytes())


def alive(server):
    """The server still does its work."""
    answer = ask(server, GOOD)
    assert answer.status == 200 and len(answer.json["outputs"][0]["data"]) == 10
