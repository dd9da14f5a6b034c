# SPDX-License-Identifier: Apache-2.0
"""Imports go one way (docs/architecture.md). A row names all that a layer may see besides itself."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BASE = {"_core", "errors"}
PYTHON = {
    "errors": set(),
    "_core": {"errors"},
    "report": {"errors"},
    "tensors": BASE,
    "call": {"errors"},
    "variants": {"errors"},
    "binding": {*BASE, "call", "tensors"},
    "program": {*BASE, "call"},
    "passes": {*BASE, "program"},
    "frontend": {*BASE, "passes", "call"},
    "quantize": {*BASE, "program", "passes", "frontend"},
    "fallback": {*BASE, "fallback_ops", "passes"},
    "fallback_ops": BASE,
    "lower": {*BASE, "program", "passes"},
    "batching": {*BASE, "tensors"},
    "tuning_cache": BASE,
    "tuning": {*BASE, "tuning_cache"},
    "model": {*BASE, "variants", "binding", "batching", "call", "program", "tensors", "report", "fallback", "tuning"},
    "check": {*BASE, "fallback", "passes", "program"},
    "_cuda": {"errors"},
    "cuda": {*BASE, "tensors", "_cuda", "tuning_cache", "batching", "fallback", "model", "passes", "program"},
    "api": {*BASE, "check", "model", "program", "tensors", "lower", "frontend", "passes", "quantize", "cuda"},
    "onnx_backend": {*BASE, "api"},
    "peers": BASE,
    "bench": {*BASE, "peers", "model"},
    "serve": {*BASE, "api", "model", "batching", "tensors", "cuda"},
    "cli": {*BASE, "serve", "bench", "peers", "report", "api", "model", "cuda"},
}
NATIVE = {
    "csrc/base": set(),
    "kernels": {"csrc/base"},
    "csrc/ops": {"csrc/base", "kernels"},
    "csrc/engine": {"csrc/base", "kernels", "csrc/ops"},
    "csrc/python": {"csrc/base", "kernels", "csrc/ops", "csrc/engine"},
    "csrc/cuda": {"csrc/base", "kernels"},
}


def python_edges():
    package = ROOT / "src" / "fastinfer"
    for path in sorted(package.rglob("*.py")):
        layer = path.relative_to(package).parts[0].removesuffix(".py")
        if layer in ("__init__", "__main__"):
            continue  # the public surface, and the door to the command line
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ("fastinfer", *path.relative_to(package).parent.parts)[
                    : None if node.level == 1 else 1 - node.level
                ]
                modules = [".".join([*base, *filter(None, [node.module])])]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            else:
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                if module == "fastinfer" and isinstance(node, ast.ImportFrom):
                    yield from ((path, layer, alias.name) for alias in node.names)
                elif module.startswith("fastinfer."):
                    yield path, layer, module.split(".")[1]


def native_edges():
    layer_of = lambda name: name.split("/")[0] if name.startswith("kernels/") else "/".join(name.split("/")[:2])  # noqa: E731
    for path in sorted([*ROOT.glob("csrc/**/*"), *ROOT.glob("kernels/**/*")]):
        if path.suffix in (".h", ".cc", ".inc", ".cu", ".cuh"):
            for target in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.M):
                name = path.relative_to(ROOT).as_posix()
                yield path, layer_of(name), layer_of(target) if "/" in target else layer_of(name)


def violations():
    for edges, allowed in ((python_edges(), PYTHON), (native_edges(), NATIVE)):
        for path, source, target in edges:
            if source != target and target not in allowed.get(source, set()):
                yield f"{path.relative_to(ROOT)}: {source} may not use {target}"


def test_names_of_test_modules_are_unique():
    """Tests import their helpers by bare names, from all folders in one run: a second `oracle` would be the first one."""
    names = [p.name for p in (ROOT / "tests").rglob("*.py") if p.name not in ("conftest.py", "__init__.py")]
    assert sorted(names) == sorted(set(names))


def test_imports_go_one_way():
    assert not list(violations())


if __name__ == "__main__":
    sys.exit("\n".join(violations()) or 0)
