# SPDX-License-Identifier: Apache-2.0
"""Keys of callers who may do different things."""

import os
from pathlib import Path

from fastinfer.serve.access.keys import digest_of

# name: (scopes, models)
KEYS = {
    "boss": ("infer read admin metrics", "*"),
    "reader": ("read", "*"),
    "runner": ("infer", "double"),
    "watcher": ("metrics", "*"),
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
