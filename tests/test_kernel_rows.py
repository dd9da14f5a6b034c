# SPDX-License-Identifier: Apache-2.0
"""The samples of kernels/<family>/samples.py: each row of each table is reached by one, and small ones are right."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from support import ISAS, run_everywhere

from fastinfer import _core

PATH = Path(__file__).parent.parent / "benchmarks" / "kernels.py"


def _benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_kernels", PATH)
    module = importlib.util.module_from_spec(spec)
    import sys

    first = sys.path[0]
    spec.loader.exec_module(module)
    sys.path[0] = first
    return module


bench = _benchmark()


@pytest.fixture(scope="module")
def reached():
    """(family, instruction set) → the kernels of its samples' steps."""
    found = {}
    for family in bench.families():
        for case in bench.samples(family)[0].values():
            arrays = case.arrays()
            for isa in ISAS:
                model = bench.compiled(case, arrays, isa, 1)
                found.setdefault(family, set()).update(s["kernel"] for s in model.explain(case.feeds(arrays)).steps)
    return found


ROWS = list(bench.rows())


def test_tables_are_read():
    assert {r.family for r in ROWS} >= {"gemm", "attention", "winograd", "depthwise", "pool", "norm", "softmax", "reduce",
                                        "pointwise", "move", "resize", "rnn"}  # fmt: skip
    assert ("gemm", "avx512", "gemm_f32_6x64") in {r[:3] for r in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.family}-{r.symbol or 'x'.join(r.numbers)}-{r.isa}")
def test_a_sample_reaches(row, reached):
    if row.isa not in ISAS:
        pytest.skip(f"this CPU lacks {row.isa}")
    steps = bench.samples(row.family)[1]
    assert any(row.runs_in(k, steps) for k in reached[row.family] | reached["conv"]), sorted(reached[row.family])


SMALL = {
    f"{family}-{name}": case
    for family in bench.families()
    for name, case in bench.samples(family)[0].items()
    if sum(int(np.prod(t.shape)) for t in case.inputs if t is not None) < 3e5
}


@pytest.mark.parametrize("name", SMALL)
def test_instruction_sets_agree(name):
    """Each set against the plain C++ one, 1 and 2 threads the same bits; correctness itself is tests/ops' part."""
    case = SMALL[name]
    arrays = case.arrays()
    want = None
    for label, outputs in run_everywhere(case.model(arrays), case.feeds(arrays)):
        want = want or [np.asarray(y, np.float64) for y in outputs]
        for y, reference in zip(outputs, want, strict=True):
            gap = np.abs(np.asarray(y, np.float64) - reference).max()
            unit = 8e-3 if "bfloat16" in str(y.dtype) else 2e-5  # one rounding to eight bits
            assert gap <= unit * max(1.0, np.abs(reference).max()), f"{label}: {gap}"


def test_one_line_of_the_table(capsys):
    code = bench.main(["--only", "softmax", "--samples", "classes", "--seconds", "0", "--threads", "1"])
    shown = capsys.readouterr().out.splitlines()
    assert code == 0 and len(shown) == 2 + len({"baseline", "avx2", "avx512"} & set(ISAS))
    assert "softmax_baseline" in shown[2] and shown[2].endswith("bytes")
    assert _core.active_isa() == ISAS[-1]
