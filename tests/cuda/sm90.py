# SPDX-License-Identifier: Apache-2.0
"""Compiles Triton kernels for Hopper without a GPU, and says what the compiler made of them.

The interpreter replaces ``triton.jit`` when a kernel is decorated, so kernels are compiled by a second Python that starts
without it: one for all the tests of a run, fed over its stdin.

    from sm90 import compile
    c = compile("fastinfer.cuda.kernels.gemm:_tiled", {"a": "*bf16", "m": "i32"}, {"BM": 128}, {"num_warps": 8})
    assert c.wgmma and c.spills == 0 and c.shared <= SHARED
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

SHARED = 227 << 10  # bytes that a block may have on sm_90
_SRC = Path(__file__).resolve().parents[2] / "src"


@dataclass(frozen=True)
class Compiled:
    """asm: "ttir", "ttgir", "llir", "ptx" as text. shared: bytes of a block. spills: bytes of stack and local memory of a thread
    (register spills lie there). n_regs: of a thread."""

    name: str
    asm: Mapping[str, str]
    n_regs: int
    spills: int
    shared: int
    num_warps: int

    @property
    def ptx(self) -> str:
        return self.asm["ptx"]

    @property
    def wgmma(self) -> bool:
        return "wgmma.mma_async" in self.ptx

    def count(self, pattern: str) -> int:
        """Matches of a regular expression in the PTX."""
        return len(re.findall(pattern, self.ptx))


def compile(
    kernel: str,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    unaligned: tuple[str, ...] = (),
    capability: int = 90,
) -> Compiled:
    """kernel: "module:function". signature: Triton types ("*bf16", "i32", "fp32") of the arguments that are no constexpr; all
    pointers and integers are taken to be divisible by 16, as the launcher finds them in practice, but the `unaligned`.
    options: num_warps, num_stages, maxnreg, … Raises RuntimeError with the compiler's words."""
    key = kernel, _items(signature), _items(constexprs), _items(options), tuple(unaligned), capability
    return _compile(pickle.dumps(key))


def _items(d: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple((d or {}).items())


@cache
def _compile(request: bytes) -> Compiled:
    worker = _worker()
    assert worker.stdin and worker.stdout
    worker.stdin.write(len(request).to_bytes(8, "little") + request)
    worker.stdin.flush()
    head = worker.stdout.read(8)
    if len(head) < 8:
        _worker.cache_clear()
        raise RuntimeError(f"the compiler's process ended with {worker.wait()}")
    answer = pickle.loads(worker.stdout.read(int.from_bytes(head, "little")))
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return Compiled(**answer)


@lru_cache(maxsize=1)
def _worker() -> subprocess.Popen[bytes]:
    env = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "FASTINFER_CUDA")}
    env["PYTHONPATH"] = os.pathsep.join([str(_SRC), *filter(None, [env.get("PYTHONPATH")])])
    worker = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert worker.stdin
    atexit.register(worker.stdin.close)  # it ends when it has nothing more to read
    return worker


# ------------------------------------------------------------------------------------------------- in the second Python


def _answer(request: bytes) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, signature, constants, options, unaligned, capability = pickle.loads(request)
    module, name = kernel.split(":")
    function = getattr(importlib.import_module(module), name)
    types, values = dict(signature), dict(constants)
    if missing := [p for p in function.arg_names if p not in types and p not in values]:
        raise TypeError(f"{kernel}: no type of {', '.join(missing)}")
    source = ASTSource(
        function,
        signature={p: "constexpr" if p in values else types[p] for p in function.arg_names},
        constexprs={(function.arg_names.index(p),): _constant(v) for p, v in values.items()},
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, p in enumerate(function.arg_names)
            if p in types and p not in unaligned and types[p][0] in "*i"
        },
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(options))
    n_regs, spills = _resources(compiled.asm["cubin"])
    return {
        "name": compiled.metadata.name,
        "asm": {k: v for k, v in compiled.asm.items() if isinstance(v, str)},
        "n_regs": n_regs,
        "spills": spills,
        "shared": compiled.metadata.shared,
        "num_warps": compiled.metadata.num_warps,
    }


def _constant(value: Any) -> Any:
    """A jitted function given as "module:function" is itself."""
    if isinstance(value, str) and re.fullmatch(r"[\w.]+:\w+", value):
        module, name = value.split(":")
        return getattr(importlib.import_module(module), name)
    return value


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of stack and local memory, of a thread."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    usage = {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def _serve() -> None:
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a compiler prints must not come between answers
    while head := source.read(8):
        try:
            answer: Any = _answer(source.read(int.from_bytes(head, "little")))
        except Exception as e:
            answer = f"{type(e).__name__}: {e}"
        data = pickle.dumps(answer)
        sink.write(len(data).to_bytes(8, "little") + data)
        sink.flush()


if __name__ == "__main__":
    _serve()
