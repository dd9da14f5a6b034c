# SPDX-License-Identifier: Apache-2.0
"""Everything here runs without a GPU, kernels by Triton's interpreter; what needs a device is marked `gpu`. With
FASTINFER_CUDA=device it is the other way round: the same tests run on the device, and compile what they run."""

import os

import pytest

if os.environ.setdefault("FASTINFER_CUDA", "interpret") == "interpret":
    os.environ["TRITON_INTERPRET"] = "1"

import rounding

if os.environ.get("TRITON_INTERPRET") == "1":
    rounding.install()


def pytest_collection_modifyitems(config, items):
    import torch

    if "slow" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))

    missing = "needs an NVIDIA GPU" if not torch.cuda.is_available() else "FASTINFER_CUDA=interpret: runs on the CPU"
    if os.environ["FASTINFER_CUDA"] == "interpret":
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def device():
    """The torch device that kernels run on."""
    from fastinfer.cuda.device import open_device

    return open_device("cuda").torch
