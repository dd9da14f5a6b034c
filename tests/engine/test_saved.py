# SPDX-License-Identifier: Apache-2.0
"""Saved programs: same bits after loading, on this instruction set and rebuilt for every other one; nothing imported."""

import subprocess
import sys

import numpy as np
import pytest
from nets import NETS
from safetensors import safe_open
from support import ISAS

import fastinfer as fi
from fastinfer import _core


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_every_instruction_set_reads_every_file(name, precision, tmp_path):
    proto, make = NETS[name]()
    feeds = make(np.random.default_rng(1), 3)
    answers, files = {}, {}
    try:
        for isa in ISAS:
            _core.force_isa(isa)
            model = fi.compile(proto, precision=precision, strict=True)
            answers[isa] = next(iter(model.run(feeds).values()))
            files[isa] = tmp_path / f"{isa}.safetensors"
            model.save(files[isa])
        for isa in ISAS:
            _core.force_isa(isa)
            for writer in ISAS:
                got = next(iter(fi.load(files[writer], strict=True).run(feeds).values()))
                np.testing.assert_array_equal(got, answers[isa], err_msg=f"written on {writer}, read on {isa}")
    finally:
        _core.force_isa(_core.detected_isa())


def test_it_is_a_safetensors_file(tmp_path):
    proto, _ = NETS["encoder"]()
    path = tmp_path / "m.safetensors"
    fi.compile(proto).save(path)
    with safe_open(path, "np") as f:
        assert "fastinfer" in f.metadata()
        assert all(f.get_tensor(k) is not None for k in f.keys())


def test_loading_imports_neither_torch_nor_onnx(tmp_path):
    proto, make = NETS["encoder"]()
    path = tmp_path / "m.safetensors"
    fi.compile(proto).save(path)
    np.savez(tmp_path / "feeds.npz", **make(np.random.default_rng(0), 1))
    code = (
        "import sys, numpy as np, fastinfer as fi\n"
        f"fi.load({str(path)!r}).run(dict(np.load({str(tmp_path / 'feeds.npz')!r})))\n"
        "print([m for m in ('torch', 'onnx', 'onnx_ir', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_constants_are_held_once():
    """Packed weights replace the dense ones: what is held is the weights and their padding, not both forms."""
    proto, _ = NETS["encoder"]()
    dense = sum(np.prod(t.dims) * 4 for t in proto.graph.initializer)
    assert fi.compile(proto).memory().constants < 1.1 * dense
