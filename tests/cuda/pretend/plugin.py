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
    DEVICE.random.seed(config.getoption("--order"))
    DEVICE.late = not config.getoption("--at-once")


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
