# SPDX-License-Identifier: Apache-2.0
"""The command line and the server with device="cuda"; `no_gpu` takes the device away."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "serve")]  # small_models


@pytest.fixture
def no_gpu(monkeypatch):
    import torch

    from fastinfer.cuda import device

    device.open_device.cache_clear()
    monkeypatch.setattr(device, "ON_CPU", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield "needed: an NVIDIA GPU, its driver, and a CUDA build of torch"
    device.open_device.cache_clear()
