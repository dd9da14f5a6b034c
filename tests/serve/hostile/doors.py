# SPDX-License-Identifier: Apache-2.0
"""Keys of callers who may do different things, and requests byte by byte."""

import os
import socket
from pathlib import Path

from fastinfer.serve.access.keys import digest_of

# name: (scopes, models)
KEYS = {
    "boss": ("infer read admin metrics", "*"),
    "reader": ("read", "*"),
    "runner": ("infer", "double"),
    "watcher": ("metrics", "*"),
    "suffix": ("infer", "*double"),
    "owner": ("infer read admin", "dou*"),
}


def secret(name):
    return f"fi_{name}".ljust(46, "x")


def bearer(name):
    return {"authorization": f"Bearer {secret(name)}"}


def write_keys(path: Path):
    rows = []
    for name, (scopes, models) in KEYS.items():
        rows.append(f'[[key]]\nname = "{name}"\nsha256 = "{digest_of(secret(name))}"')
        rows.append(f"scopes = {scopes.split()}\nmodels = {[models]}\n")
    path.write_text("\n".join(rows))
    os.chmod(path, 0o600)
    return path


def ask(server, lines, body=b"", headers=(), host="x"):
    """(status, all that came) of one raw request."""
    head = "\r\n".join([lines, f"host: {host}", *headers, f"content-length: {len(body)}", "connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", server.port), 20) as s:
        s.sendall(head.encode("latin-1") + body)
        data = b""
        while piece := s.recv(65536):
            data += piece
    return int(data.split()[1]), data
