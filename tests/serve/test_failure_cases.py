# SPDX-License-Identifier: Apache-2.0
"""docs/failure-cases.md: forty cases, and every test that it names is there."""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
TEXT = (TESTS.parent / "docs" / "failure-cases.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py): ([\w, ]+)`")


@functools.cache
def functions(path):
    return {
        n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_every_case_has_a_row():
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", TEXT, re.M)] == list(range(1, 41))


def test_every_test_that_is_named_exists():
    named = [(file, name.strip()) for file, names in NAMED.findall(TEXT) for name in names.split(",")]
    assert len(named) > 150
    missing = [f"{file}: {name}" for file, name in named
               if not (TESTS / file).is_file() or name not in functions(TESTS / file) or not name.startswith("test_")]  # fmt: skip
    assert not missing, missing


def test_every_row_names_a_test():
    for row in re.findall(r"^\| \d+ \|.*$", TEXT, re.M):
        assert NAMED.search(row), row
