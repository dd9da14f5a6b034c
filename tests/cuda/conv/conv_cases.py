# SPDX-License-Identifier: Apache-2.0
"""Convolutions as cases: tensors for the kernels, and what they must give in float64."""

import dataclasses

import numpy as np
import torch
from cuda_nodes import on_device

from fastinfer.cuda.kernels import conv
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import window_of

# Of ‖out − reference‖ / ‖reference‖. The interpreter computes tf32 as float32.
ERRORS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def activated(y, e):
    f = torch.nn.functional
    return {
        "": lambda: y, "relu": lambda: f.relu(y), "clip": lambda: y.clamp(e.alpha, e.beta),
        "leaky_relu": lambda: f.leaky_relu(y, e.alpha), "sigmoid": y.sigmoid, "tanh": y.tanh, "silu": lambda: f.silu(y),
        "gelu": lambda: f.gelu(y), "gelu_tanh": lambda: f.gelu(y, approximate="tanh"), "hard_swish": lambda: f.hardswish(y),
        "hard_sigmoid": lambda: (y * e.alpha + e.beta).clamp(0, 1), "elu": lambda: f.elu(y, e.alpha),
        "softplus": lambda: f.softplus(y, threshold=1000), "mish": lambda: f.mish(y),
        "quick_gelu": lambda: y * (e.alpha * y).sigmoid(),
    }[e.activation]()  # fmt: skip


def finished(y, bias, residual, e):
    """float64 [n, spatial..., channels]"""
    y = y if bias is None else y + bias.double()
    if e.residual == "before":
        y = y + residual.double()
    y = activated(y, e)
    return y + residual.double() if e.residual == "after" else y


def drawn(rng, dtype, *shape, scale=1.0):
    return torch.from_numpy(rng.standard_normal(shape) * scale).to(dtype)


@dataclasses.dataclass
class Case:
    """size: of the image, 1 to 3 extents; pads: begins, then ends."""

    size: tuple
    kernel: tuple
    cin: int = 16
    cout: int = 16
    batch: int = 1
    stride: tuple = None
    dilation: tuple = None
    pads: tuple = None
    groups: int = 1
    x_first: bool = False
    epilogue: Epilogue = Epilogue()
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def make(self):
        n, rng = len(self.size), np.random.default_rng(self.seed)
        stride, dilation = self.stride or (1,) * n, self.dilation or (1,) * n
        pads = self.pads or (0,) * (2 * n)
        x = drawn(rng, self.dtype, self.batch, self.cin * self.groups, *self.size)
        w = drawn(rng, self.dtype, self.cout * self.groups, self.cin, *self.kernel, scale=1 / np.sqrt(self.cin * np.prod(self.kernel)))  # fmt: skip
        around = [p for a in reversed(range(n)) for p in (pads[a], pads[a + n])]
        f = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[n - 1]
        y = f(torch.nn.functional.pad(x.double(), around), w.double(), None, stride, 0, dilation, self.groups)
        y = y.movedim(1, -1)
        window = window_of(self.size, y.shape[1:-1], self.kernel, stride, dilation, pads)
        bias = drawn(rng, torch.float32, y.shape[-1]) if self.epilogue.bias else None
        residual = drawn(rng, self.dtype, *y.shape) if self.epilogue.residual else None
        products = "ieee" if self.dtype == torch.float32 else "half"
        problem = conv.Problem(self.dtype, products, self.batch, window, self.groups, self.cin, self.cout, self.epilogue, self.x_first)  # fmt: skip
        given = x if self.x_first else x.movedim(1, -1)
        return problem, given.contiguous(), w, bias, residual, finished(y, bias, residual, self.epilogue)


def computed(problem, config, x, w, bias, residual, shape):
    y = torch.full(shape, float("nan"), dtype=problem.dtype)
    size = conv.workspace(problem, config)
    partial = torch.full((size,), 255, dtype=torch.uint8) if size else None
    on_device(conv.run, x, conv.lay_out_weights(w, problem), bias, residual, partial, y, problem=problem, config=config)
    return y


def error(y, reference):
    """NaN if anything was left unwritten."""
    return float((y.double() - reference).norm() / reference.norm())


def tiny(problem, **changes):
    """A configuration for the interpreter: few elements per program, so that images of a few pixels have several."""
    return dataclasses.replace(conv.Config(16, 16, conv.block_k(problem), 4, 2), **changes)


def check(case, **changes):
    problem, x, w, bias, residual, reference = case.make()
    y = computed(problem, tiny(problem, **changes), x, w, bias, residual, reference.shape)
    assert error(y, reference) < ERRORS[case.dtype]
    return problem
