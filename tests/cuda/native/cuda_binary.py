# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of the kernels: read off the module with the tools that triton brings."""

import functools
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")


def tool(name):
    triton = pytest.importorskip("triton")
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not part of this triton")
    return str(path)


@dataclass(frozen=True)
class Resources:
    registers: int
    stack: int
    shared: int
    local: int


@functools.cache
def resources():
    """By mangled name."""
    out = subprocess.run(
        [tool("cuobjdump"), "--dump-resource-usage", _cuda.__file__], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", out)
    return {name: Resources(*map(int, numbers)) for name, *numbers in found}


@functools.cache
def disassembly():
    environment = {**os.environ, "PATH": f"{Path(tool('nvdisasm')).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [tool("cuobjdump"), "--dump-sass", _cuda.__file__], capture_output=True, text=True, check=True, env=environment
    ).stdout


@functools.cache
def instructions():
    """The machine code's mnemonics, with modifiers, in order, by mangled name."""
    code = {}
    for piece in disassembly().split("Function : ")[1:]:
        name, _, body = piece.partition("\n")
        code[name.strip()] = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", body)
    return code


def innermost_loop(kernel, instruction):
    """The instructions of the smallest loop that holds `instruction`."""
    body = next(p for p in disassembly().split("Function : ")[1:] if p.startswith(f"{kernel}\n"))
    code = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]*);", body)]
    loops = []
    for end, text in code:
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if jump and (begin := int(jump[1], 16)) < end:
            loops.append([text for at, text in code if begin <= at <= end])
    return min((loop for loop in loops if any(instruction in text for text in loop)), key=len)


def kernels(part):
    """Names that hold `part`; there must be some."""
    names = [name for name in resources() if part in name]
    assert names, part
    return names
