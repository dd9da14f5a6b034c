# SPDX-License-Identifier: Apache-2.0
"""fastinfer: compile a trained torch or ONNX model and run it fast, with answers you can trust."""

from fastinfer.api import compile, load
from fastinfer.batching import Batcher, Closed, DeadlineExceeded, QueueFull
from fastinfer.errors import FastinferError, InputError, ModelError, UnsupportedError
from fastinfer.model import Model
from fastinfer.tensors import TensorSpec

__version__ = "0.1.0"
__all__ = [
    "Batcher",
    "Closed",
    "DeadlineExceeded",
    "FastinferError",
    "InputError",
    "Model",
    "ModelError",
    "QueueFull",
    "TensorSpec",
    "UnsupportedError",
    "compile",
    "load",
]
