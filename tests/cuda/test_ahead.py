# SPDX-License-Identifier: Apache-2.0
"""Plans' kernels compile for an H200 with the arguments that launches have, before any launch, several at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nets import NETS

from fastinfer.cuda.kernels.launch import launch, only_compile

_HERE = Path(__file__).parent
_BENCH = _HERE.parents[1] / ".cache/bench"
QUICK = ["encoder:bf16", "residual_cnn:fp8", "recurrent:fp32"]


def run(models):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    given = [sys.executable, str(_HERE / "hopper_jit.py"), *models]
    done = subprocess.run(given, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(models):
    rows = run(models)
    assert [r["model"] for r in rows] == models
    assert {r["model"]: r["refused"] for r in rows if r["refused"]} == {}
    assert sum(r["compiled"] for r in rows) > 0


def test_whole_models_compile_for_hopper():
    check(QUICK)


@pytest.mark.slow
def test_every_network_in_every_precision():
    check([f"{n}:{p}" for n in NETS for p in ("fp32", "tf32", "bf16", "f16", "int8", "fp8") if f"{n}:{p}" not in QUICK])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in _BENCH.glob("*.onnx")))
def test_real_models(name):
    """What benchmarks/models.py left in .cache/bench; none where it never ran."""
    check([f"{_BENCH / name}.onnx:{precision}" for precision in ("bf16", "fp32")])


def test_nothing_runs_while_compiling():
    calls = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **kwargs: calls.append(("launched", args, grid, kwargs))

        def run(self, *args, grid, warmup, **kwargs):
            assert warmup
            calls.append(("compiled", args, grid, kwargs))

    launch(Kernel(), (3,))(1, n=2)
    with only_compile():
        launch(Kernel(), (3,))(1, n=2)
    launch(Kernel(), (3,))(1, n=2)
    assert [what for what, *_ in calls] == ["launched", "compiled", "launched"]
    assert {(args, grid, kwargs["n"]) for _, args, grid, kwargs in calls} == {((1,), (3,), 2)}
