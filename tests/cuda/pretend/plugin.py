# SPDX-License-Identifier: Apache-2.0
"""pytest -p pretend.plugin: the session runs on the pretended device, as FASTINFER_CUDA=device runs on a real one."""

import gc
import os

import pytest

os.environ["FASTINFER_CUDA"] = "device"
os.environ["TRITON_INTERPRET"] = "1"
os.environ["FASTINFER_PRETEND"] = "1"


def pytest_addoption(parser):
    parser.addoption("--order", type=int, default=0, help="seed of the order between streams")
    parser.addoption("--at-once", action="store_true", help="work runs when it is launched")


def pytest_configure(config):
    from pretend import launches, tensors, torch_cuda
    from pretend.work import DEVICE

    torch_cuda.install()
    tensors.install()
    launches.install()
    launches.install_native()
    _hide_from_export()
    DEVICE.random.seed(config.getoption("--order"))
    DEVICE.late = not config.getoption("--at-once")


def _hide_from_export():
    """torch.export looks after the random numbers of a device that it sees, by calls that only a CUDA build has."""
    import torch

    from fastinfer import frontend

    from_torch = frontend.from_torch

    def unseen(*given):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setattr(torch.cuda, "is_initialized", lambda: False)
            return from_torch(*given)

    frontend.from_torch = unseen


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """No work, no capture, no write beyond an allocation."""
    yield
    from pretend.memory import USE
    from pretend.work import DEVICE

    gc.collect()
    assert not DEVICE.captures, "a capture was left open"
    DEVICE.finish_all()
    overruns, USE.overruns[:] = list(USE.overruns), []
    assert not overruns, overruns
