# SPDX-License-Identifier: Apache-2.0
"""Real text that every installation has: Python source, English documentation, C++ headers. Nothing is downloaded.

A sample is a passage of 96 bytes from anywhere in a file; which of the three kinds it is, is the task. Files, not
passages, are divided into training and test, so no test passage has neighbours among those that the network has seen.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
import sysconfig
from pathlib import Path

import numpy as np

KINDS = ["Python", "English", "C++"]
LENGTH = 96  # bytes; what is shorter is filled up with zeros
DOCUMENTED = ["argparse", "asyncio", "collections", "csv", "datetime", "decimal", "difflib", "email", "fractions", "heapq",
              "inspect", "io", "json", "logging", "optparse", "pathlib", "pickletools", "random", "shutil", "socket",
              "statistics", "string", "struct", "subprocess", "tarfile", "textwrap", "threading", "turtle", "typing",
              "unittest", "urllib", "zipfile", "torch", "torch.nn", "torch.optim", "numpy", "numpy.linalg", "numpy.fft"]  # fmt: skip


def python_files() -> list[str]:
    """Sources of the standard library without their docstrings and comments."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [ast.unparse(_Bare().visit(ast.parse(f.read_text(errors="ignore")))) for f in files]


class _Bare(ast.NodeTransformer):
    """Takes string statements, docstrings among them, out of a syntax tree."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_text else node


def english_files() -> list[str]:
    """The documentation of modules and what they hold, a text for each module."""
    texts = []
    for name in DOCUMENTED:
        module = importlib.import_module(name)
        held = [module, *(value for _, value in sorted(vars(module).items(), key=lambda item: item[0]))]
        held += [method for value in held if inspect.isclass(value) for method in vars(value).values()]
        docs = dict.fromkeys(inspect.getdoc(value) or "" for value in held if callable(value) or value is module)
        texts.append("\n\n".join(p for doc in docs for p in doc.split("\n\n") if _is_prose(p)))
    return texts


def _is_prose(paragraph: str) -> bool:
    """Leaves out examples, signatures and tables."""
    letters = sum(c.isalpha() or c in " \n,.'" for c in paragraph)
    return len(paragraph) > 80 and letters > 0.95 * len(paragraph)


def cpp_files() -> list[str]:
    """torch's headers without their comments."""
    import torch

    folder = Path(torch.__file__).parent / "include" / "c10"
    texts = [f.read_text(errors="ignore") for f in sorted(folder.rglob("*.h"))]
    return [
        "\n".join(line for line in t.splitlines() if not line.lstrip().startswith(("//", "/*", "*"))) for t in texts
    ]


def encode(text: str) -> np.ndarray:
    """The bytes of a text, LENGTH of them: what the network reads."""
    return np.frombuffer(text.encode()[:LENGTH].ljust(LENGTH, b"\0"), np.uint8)


def passages(texts: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` passages of 32 bytes or more from anywhere in the texts, uint8 [count, LENGTH]."""
    joined = np.frombuffer("\n".join(texts).encode(), np.uint8)
    starts = rng.integers(0, len(joined) - LENGTH, count)
    ends = rng.integers(32, LENGTH + 1, count)
    return joined[starts[:, None] + np.arange(LENGTH)] * (np.arange(LENGTH) < ends[:, None]).astype(np.uint8)


def samples(train: int, test: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(training passages, their kinds, test passages, their kinds), equally many of each kind."""
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[], []]
    for texts in (python_files(), english_files(), cpp_files()):
        texts = [texts[i] for i in rng.permutation(len(texts))]
        held_out = max(1, len(texts) // 5)
        parts[0].append(passages(texts[held_out:], train, rng))
        parts[1].append(passages(texts[:held_out], test, rng))
    kinds = [np.repeat(np.arange(len(KINDS)), n) for n in (train, test)]
    return np.concatenate(parts[0]), kinds[0], np.concatenate(parts[1]), kinds[1]


if __name__ == "__main__":  # a text as a request's body
    print(json.dumps({"text": [encode(sys.argv[1]).tolist()]}))
