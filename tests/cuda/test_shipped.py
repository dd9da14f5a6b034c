# SPDX-License-Identifier: Apache-2.0
"""Tables that the package brings: made by tools/tune_gpu.py, found by the device's name, harmless when they are old."""

import dataclasses
import fnmatch
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastinfer.cuda import shipped, tuning
from fastinfer.cuda.device import open_device
from fastinfer.cuda.kernels import gemm

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = gemm.Problem(32, 48, 64, torch.bfloat16, torch.bfloat16, "half", 64, 64, bias=True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose tuned/ holds what a test writes to the given path, for a device of this name."""
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shipped.importlib.resources, "files", lambda name: tmp_path)
    shipped.shipped.cache_clear()
    yield dataclasses.replace(open_device("cuda"), name="NVIDIA Test 9"), tmp_path / "tuned" / "test-9.json"
    shipped.shipped.cache_clear()


def _table(**rows: str) -> shipped.Table:
    return shipped.Table("measured", {"machine": "NVIDIA Test 9"}, "2026-01-01", "all", rows)


def test_names() -> None:
    assert shipped.file_name("NVIDIA H200") == "h200.json"
    assert shipped.file_name("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3.json"


def test_a_row_is_taken_where_nothing_was_tuned(package) -> None:
    device, path = package
    other = gemm.configs(PROBLEM)[-1]
    assert other != gemm.default(PROBLEM)
    assert tuning.Tuner(device).choose(gemm, PROBLEM) == gemm.default(PROBLEM)
    shipped.shipped.cache_clear()
    _table(**{tuning.problem_key(gemm, PROBLEM): tuning.config_text(other)}).write(path)
    assert tuning.Tuner(device).choose(gemm, PROBLEM) == other


def test_rows_of_an_older_build_are_harmless(package) -> None:
    """A configuration with fields that are no more, or that is no candidate; a problem with fields that are no more."""
    device, path = package
    key = tuning.problem_key(gemm, PROBLEM)
    for text in ('{"bm": 128, "rows": 3}', tuning.config_text(gemm.Config(1, 2, 3, 4, 5)), "nonsense"):
        _table(**{key: text, 'gemm {"m": 1}': text}).write(path)
        shipped.shipped.cache_clear()
        assert tuning.Tuner(device).choose(gemm, PROBLEM) == gemm.default(PROBLEM)


@pytest.mark.parametrize("change", [{"kind": "guessed"}, {"format": 2}, {"more": 1}, {"winners": {"a": 1}}])
def test_what_is_no_table_is_told(tmp_path, change) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**dataclasses.asdict(_table()), **change}))
    with pytest.raises(ValueError, match="not a table of configurations"):
        shipped.read(path)
    assert shipped.read(tmp_path / "none.json") is None


def test_tables_of_the_package_are_read_and_travel_with_it() -> None:
    """Whatever lies in tuned/ is measured; neither git nor the wheel leaves such files out."""
    folder = ROOT / "src/fastinfer/cuda/tuned"
    for path in folder.glob("*.json"):
        table = shipped.read(path)
        assert table.kind == "measured" and table.winners and shipped.file_name(table.about["machine"]) == path.name
    ignored = subprocess.run(["git", "check-ignore", "-q", str(folder / "h200.json")], cwd=ROOT)
    assert ignored.returncode != 0
    if sys.version_info >= (3, 11):
        import tomllib

        wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]
        assert wheel["packages"] == ["src/fastinfer"]
        assert not any(fnmatch.fnmatch("h200.json", pattern) for pattern in wheel.get("exclude", []))


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("tune_gpu", ROOT / "tools/tune_gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    products, convolutions = (importlib.import_module(f"gpu.{n}") for n in ("products", "convolutions"))
    monkeypatch.setattr(products, "TINY", products.TINY[:1])
    monkeypatch.setattr(convolutions, "TINY", [])
    return module


def test_the_tool_predicts_what_default_gives(tool, tmp_path) -> None:
    path = tool.main(["--predict", "--tiny", "--out", str(tmp_path / "p.json")])
    table = shipped.read(path)
    assert table.kind == "predicted" and table.about["machine"] == "NVIDIA H200" and len(table.winners) >= 4
    with pytest.raises(SystemExit):
        tool.main(["--predict"])


def test_the_tool_races_and_goes_on_where_it_stopped(tool, tmp_path, monkeypatch, capsys) -> None:
    raced: list[str] = []
    plain = tuning.Tuner._median
    monkeypatch.setattr(tuning.Tuner, "_median", lambda self, launch: (raced.append(""), plain(self, launch))[1])
    arguments = ["--tiny", "--most", "2", "--out", str(tmp_path / "m.json")]
    table = shipped.read(tool.main(arguments))
    assert table.kind == "measured" and table.raced == "2" and len(table.winners) >= 4 and raced
    key = next(k for k in table.winners if k.startswith("gemm ") and '"half"' in k)
    assert json.loads(table.winners[key])["bm"] > 0
    before = len(raced)
    assert shipped.read(tool.main(arguments)).winners == table.winners
    assert len(raced) == before
    capsys.readouterr()
    tool.main([*arguments, "--seconds", "-1"])
    assert "call again" in capsys.readouterr().err
