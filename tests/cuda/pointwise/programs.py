# SPDX-License-Identifier: Apache-2.0
"""Generated kernels by name, for the compiler's process (sm90.py): every name is made when it is asked for."""

from math import prod

import torch

from fastinfer.cuda.kernels import pointwise_source as S
from fastinfer.cuda.kernels.pointwise import Problem
from fastinfer.cuda.kernels.pointwise_math import OPS
from fastinfer.cuda.kernels.pointwise_walk import walk_broadcast

# name: (program, output shape, shapes of its tensors, scalars among its inputs)
GELU_ADD = S.Program(("f", "f"), ("add", "gelu"), (0, 1, -1, 2, -1, -1), (1,))
RESIDUAL = S.Program(
    ("f", "f", "f", "f"), ("fma", "silu", "mul"), (0, 1, 2, 4, -1, -1, 5, 3, -1), (1, 2), frozenset({3})
)
MASK = S.Program(("b", "b", "f", "f"), ("and", "where"), (0, 1, -1, 4, 2, 3), (1,), frozenset({2, 3}))
# (x · scale + y) to bytes
REQUANTIZE = S.Program(
    ("f", "f", "f", "f"), ("mul", "add", "quantize"), (0, 2, -1, 4, 1, -1, 5, 2, 3), (2,), frozenset({2, 3})
)
_X, _ROW = (64, 4096), (4096,)
CASES = {
    "line": (GELU_ADD, _X, [_X, _X]),
    "odd_line": (GELU_ADD, (1001,), [(1001,), (1001,)]),
    "bias": (GELU_ADD, _X, [_X, _ROW]),
    "units_of_8": (GELU_ADD, (64, 1000), [(64, 1000), (1000,)]),
    "column": (GELU_ADD, _X, [_X, (64, 1)]),
    "residual": (RESIDUAL, _X, [_X, _ROW, (64, 1)]),
    "requantize": (REQUANTIZE, _X, [_X, _X]),
    "mask": (MASK, (2, 1, 512, 512), [(1, 1, 512, 1), (2, 1, 1, 512)]),
}


def problem(name: str, dtype: torch.dtype = torch.float32) -> Problem:
    program, shape, inputs = CASES[name]
    kinds = [k for i, k in enumerate(program.kinds) if i not in program.scalars] + program.output_kinds()
    dtypes = tuple(torch.bool if k == "b" else dtype for k in kinds)
    return Problem(program, walk_broadcast(shape, inputs, len(program.outputs)), dtypes)


def single(name: str) -> Problem:
    kinds = ["b" if k == "b" else "f" for k in OPS[name][0]]
    arity, n = len(kinds), prod(_X)
    p = S.Program(tuple(kinds), (name,), (*range(arity), *([-1] * (3 - arity))), (0,))
    dtypes = tuple(torch.bool if k == "b" else torch.float32 for k in [*kinds, *p.output_kinds()])
    return Problem(p, walk_broadcast((n,), [(n,)] * arity, 1), dtypes)


def __getattr__(name: str):
    """bias, bias_bf16 (same text; the types come with the signature), op_gelu."""
    if name.startswith("op_"):
        p = single(name[3:])
    elif name.removesuffix("_") in CASES:
        p = problem(name)
    else:
        raise AttributeError(name)
    return S.kernel(p.program, p.form)
