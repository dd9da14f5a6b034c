# SPDX-License-Identifier: Apache-2.0
"""Compiling in a process of its own, for large models: it holds no lock that requests need, runs at a low priority, and if
it dies of the model, the server does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fastinfer.errors import FastinferError, ModelError, UnsupportedError

# Bytes of a version. Below, starting an interpreter (0.7 s) costs more than compiling disturbs.
LARGE = 32 << 20
NICE = 10
TIMEOUT = 3600.0  # seconds
_REFUSED, _UNSAVED = 3, 4  # exit codes; of the first the reason is on stdout


def compile_elsewhere(source: Path, target: Path, *, device: str, precision: str, strict: bool) -> None:
    """Compiles `source` and saves the program as `target`. Blocks without holding the interpreter's lock. Raises
    ModelError, UnsupportedError; Unsaved; Died when the process ended in another way."""
    asked = {"device": device, "precision": precision, "strict": strict}
    job = json.dumps({"source": str(source), "target": str(target), "asked": asked})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fastinfer.serve.repository.compiling", job],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Died(f"compiling it in a process of its own failed: {type(e).__name__}") from e
    if done.returncode == _REFUSED:
        reason = json.loads(done.stdout)
        raise (UnsupportedError if reason["unsupported"] else ModelError)(reason["text"])
    if done.returncode == _UNSAVED:
        raise Unsaved("the program cannot be saved")
    if done.returncode < 0:
        raise Died(f"compiling it was ended by signal {-done.returncode}")
    if done.returncode:
        raise Died(f"compiling it ended with exit code {done.returncode}")


class Died(ModelError):
    """The process ended without a reason of its own."""


class Unsaved(ModelError):
    """The model compiles, but no file holds it: the disk is full, or it has constants that no file can hold."""


def main(text: str) -> int:
    from fastinfer.api import compile

    os.nice(NICE)
    job = json.loads(text)
    try:
        model = compile(job["source"], **job["asked"])
    except FastinferError as e:
        print(json.dumps({"text": str(e), "unsupported": isinstance(e, UnsupportedError)}))
        return _REFUSED
    try:
        model.save(job["target"])
    except (FastinferError, OSError):
        return _UNSAVED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
