# SPDX-License-Identifier: Apache-2.0
"""fastinfer._cuda as a build: it imports where there is no driver, its errors say what was asked, nothing spills."""

import re
import subprocess

import cuda_binary as binary
import pytest
import torch

from fastinfer import FastinferError
from fastinfer.cuda import native

_cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")
no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a device")


@no_device
def test_imports_without_a_driver():
    assert _cuda.device_count() == 0
    assert _cuda.runtime_version() >= 12000
    needed = subprocess.run(["ldd", _cuda.__file__], capture_output=True, text=True).stdout
    assert not re.search(r"libcuda|libtorch", needed)


@no_device
def test_a_failed_launch_says_which():
    with pytest.raises(
        FastinferError, match="pack_ragged: 2 sequences of at most 3 rows of 16 bytes, 4 in all, grid 1x2x1"
    ):
        _cuda.pack_ragged(_cuda.Ragged(16, 16, 16, 2, 3, 4, 16), 0)


def test_why_it_is_not_used():
    assert "need a device" in native.missing(torch.device("cpu"))


def test_nothing_spills():
    for name, used in binary.resources().items():
        assert used.stack == 0 and used.local == 0, (name, used)
        assert used.shared <= 48 << 10, (name, used)


def test_machine_code_is_hoppers_and_ptx_is_there():
    listed = subprocess.run(
        [binary.tool("cuobjdump"), "--list-ptx", _cuda.__file__], capture_output=True, text=True, check=True
    )
    assert ".sm_90.ptx" in listed.stdout
    assert "sm_90a" in re.findall(r"arch = (\S+)", binary.disassembly())
