# SPDX-License-Identifier: Apache-2.0
"""No code compiled for one instruction set may serve another. Of a weak symbol that several objects define the linker
keeps one copy for all: an AVX-512 copy of std::max would end the process on a machine without AVX-512."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastinfer import _core

ROOT = Path(__file__).resolve().parent.parent
SETS = ["baseline", "avx2", "avx512", "avx512vnni", "avx512bf16"]
needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")


def symbols(path, *flags):
    """(type letter, demangled name) of each defined symbol."""
    out = subprocess.run(
        ["nm", "-C", "--defined-only", *flags, path], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^[0-9a-f]* +(\w) (.*)$", out, re.M)


def isa_objects():
    return [(isa, p) for isa in SETS[1:] for p in sorted(ROOT.glob(f"build/CMakeFiles/fi_{isa}.dir/**/*.o"))]


@needs_nm
def test_objects_of_an_instruction_set_define_only_its_namespace():
    objects = isa_objects()
    if not objects:
        pytest.skip("no build folder beside the sources (an installed wheel): the next test reads the library itself")
    strangers = []
    for isa, path in objects:
        own = re.compile(rf"\bfi::{isa}::")
        # Text, weak, unique and data symbols that other objects can see, upper case in nm's notation (u, v, w, V, W).
        seen = [(kind, name) for kind, name in symbols(path) if kind in "TWVuDBRi" or kind in "vw"]
        strangers += [f"{path.name}: {kind} {name}" for kind, name in seen if not own.search(name)]
    assert not strangers, "\n".join(strangers)


@needs_nm
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) is not installed")
def test_library_uses_wide_registers_only_in_their_namespaces():
    library = _core.__file__
    listing = subprocess.Popen(
        ["objdump", "-d", "-C", "--no-show-raw-insn", "-j", ".text", library], stdout=subprocess.PIPE, text=True
    )
    wide = re.compile(r"%[yz]mm")
    allowed = re.compile(r"\bfi::avx")
    owner, offenders = "", set()
    for line in listing.stdout:
        if line.endswith(">:\n"):
            owner = line
        elif wide.search(line) and not allowed.search(owner):
            offenders.add(owner.strip())
    assert listing.wait() == 0
    assert not offenders, "\n".join(sorted(offenders))


def test_one_library_holds_all_instruction_sets():
    """The names that FASTINFER_ISA takes, each in force when forced, as far as this CPU goes."""
    before = _core.active_isa()
    try:
        for isa in SETS[: SETS.index(_core.detected_isa()) + 1]:
            _core.force_isa(isa)
            assert _core.active_isa() == isa
    finally:
        _core.force_isa(before)
