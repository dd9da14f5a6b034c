# SPDX-License-Identifier: Apache-2.0
"""What the compiler for Hopper makes of generated pointwise kernels: 16-byte accesses, no spills, no local memory."""

import inspect

import pytest
import torch
from programs import problem, single
from sm90 import compile

from fastinfer.cuda.kernels import pointwise
from fastinfer.cuda.kernels import pointwise_source as S
from fastinfer.cuda.kernels.pointwise_math import OPS

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.bool: "*i1"}


def compiled(name, p, unaligned=()):
    names = inspect.signature(S.kernel(p.program, p.form).fn).parameters
    tensors = [n for n in names if n[0] in "xy" and "_" not in n]
    types = dict(zip(tensors, (TYPES[t] for t in p.dtypes), strict=True))
    constants = [n for n in names if n.isupper()]
    signature = {n: types.get(n, "fp32" if n[0] == "c" and n != "cols" else "i32") for n in names if n not in constants}
    config = pointwise.default(p)
    rows, cols = pointwise.tile(p, config)
    shape = {"BLOCK": config.block, "ROWS": rows, "COLS": cols}
    scaled = tuple(n for n, u in zip(["cols"], [p.form.inner]) if u < 16)
    c = compile(
        f"pointwise.programs:{name}", signature, {n: shape[n] for n in constants}, pointwise.options(p, config), (*unaligned, *scaled)
    )  # fmt: skip
    assert c.spills == 0 and c.n_regs <= 128, (c.spills, c.n_regs)
    return c


LOAD, STORE = r"ld\.global[.\w:]*\.v4\.b32", r"st\.global[.\w:]*\.v4\.b32"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name,loads", [("line", 2), ("odd_line", 2), ("bias", 2), ("column", 1), ("residual", 2)])
def test_16_byte_accesses(name, loads, dtype):
    c = compiled(name, problem(name, dtype))
    assert c.count(LOAD) >= loads and c.count(STORE) >= 1, c.ptx


@pytest.mark.parametrize("dtype,width", [(torch.float32, "v4"), (torch.bfloat16, "v4")], ids=str)
def test_rows_that_are_multiples_of_8_elements(dtype, width):
    """Triton knows divisors of 16 only; 1000 = 8 * 125 columns come in as 125."""
    p = problem("units_of_8", dtype)
    strides = tuple(n for n in inspect.signature(S.kernel(p.program, p.form).fn).parameters if "_s" in n)
    c = compiled("units_of_8", p, strides)
    assert c.count(LOAD) >= 2 and c.count(STORE) >= 1, c.ptx


def test_what_is_rounded_is_not_fused():
    """As on the CPU: x · scale is rounded before y is added, or a tie goes to the other byte. Others are."""
    apart = compiled("requantize", problem("requantize")).count(r"\bfma\.rn\.f32")
    assert apart == 0 and compiled("residual", problem("residual")).count(r"\bfma\.rn\.f32") > 0


def test_conditions():
    compiled("mask", problem("mask"))


@pytest.mark.parametrize("name", ["pow", "tanh", "erf", "softplus", "round", "div", "mish", "quantize", "and", "max"])
def test_operations_compile(name):
    c = compiled(f"op_{name}", single(name))
    assert c.count(LOAD if OPS[name][0][0] != "b" else "ld.global") >= 1
