# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of the convolutions for Hopper, without one: matrix units, no spills, shared memory that a block has."""

import sys
from pathlib import Path

import pytest
import torch

from fastinfer.cuda.kernels import conv, depthwise
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import window_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import sm90

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
FULL = Epilogue(True, "before", "relu")
SIZES = ("M", "tiles", "column_tiles", "D", "H", "W", "OD", "OH", "OW")


def window(size, kernel, stride=1):
    out = -(-size // stride)
    return window_of((size, size), (out, out), (kernel, kernel), (stride, stride), None, (kernel // 2,) * 4)


def compiled(p, c, **others):
    types = dict.fromkeys(("x_ptr", "w_ptr", "r_ptr", "y_ptr"), TYPES[p.dtype]) | others
    types |= {"b_ptr": "*fp32", "p_ptr": "*fp32", "alpha": "fp32", "beta": "fp32", **dict.fromkeys(SIZES, "i32")}
    options = {"num_warps": c.warps, "num_stages": c.stages}
    return sm90.compile("fastinfer.cuda.kernels.conv_kernel:conv_kernel", types, conv.constants(p, c), options, SIZES)


def problem(
    size, cin, cout, kernel, batch=1, dtype=torch.bfloat16, products="half", x_first=False, stride=1, epilogue=FULL
):
    return conv.Problem(dtype, products, batch, window(size, kernel, stride), 1, cin, cout, epilogue, x_first)


RESNET = {
    "stem": problem(224, 3, 64, 7, 32, x_first=True, stride=2, epilogue=Epilogue(True, "", "relu")),
    "56_3x3": problem(56, 64, 64, 3, 32),
    "14_3x3": problem(14, 256, 256, 3, 32),
    "7_3x3": problem(7, 512, 512, 3),
    "wide_1x1": problem(14, 256, 1024, 1, 32),
    "wide_1x1_no_residual": problem(14, 1024, 512, 1, 32, dtype=torch.float16, epilogue=Epilogue(True, "", "silu")),
    "tf32": problem(28, 128, 128, 3, 8, torch.float32, "tf32"),
}


@pytest.mark.parametrize("name", RESNET)
def test_matrix_units(name):
    """The default, and the candidate with the most accumulators."""
    p = RESNET[name]
    found = conv.configs(p)
    largest = max(found, key=lambda c: (c.block_m * c.block_n / c.warps, c.variant != "split", c.stages))
    for c in {found[0], largest}:
        k = compiled(p, c)
        assert k.wgmma and k.spills == 0 and k.shared <= sm90.SHARED, (c, k.n_regs, k.spills, k.shared)
        if p.mode != "gather":
            assert k.count(r"cp\.async\.cg\.shared\.global \[[^\]]*\], \[[^\]]*\], 0x10") > 0, c  # 16 bytes at a time


def test_float32_products_have_no_matrix_units():
    p = problem(28, 128, 128, 3, 8, torch.float32, "ieee")
    k = compiled(p, conv.default(p))
    assert not k.wgmma and "mma.sync" not in k.ptx and k.spills == 0 and k.shared <= sm90.SHARED


@pytest.mark.parametrize(("size", "kernel", "stride"), [(112, 3, 1), (56, 3, 2), (28, 5, 1)])
def test_depthwise(size, kernel, stride):
    p = depthwise.Problem(torch.bfloat16, 8, window(size, kernel, stride), 96, 1, Epilogue(True, "", "clip", 0, 6))
    types = dict.fromkeys(("x_ptr", "w_ptr", "r_ptr", "y_ptr"), "*bf16") | {
        "b_ptr": "*fp32",
        "alpha": "fp32",
        "beta": "fp32",
    }
    sizes = ("H", "W", "OH", "OW", "row_blocks", "column_blocks")
    types |= dict.fromkeys(sizes, "i32")
    for c in {c.rows: c for c in reversed(depthwise.configs(p))}.values():
        options = {"num_warps": c.warps}
        name = "fastinfer.cuda.kernels.depthwise:depthwise_kernel"
        k = sm90.compile(name, types, depthwise.constants(p, c), options, sizes)
        assert k.spills == 0, (c, k.n_regs)
        assert k.count(r"ld\.global[.\w]*\.v4") >= 3 and k.count(r"st\.global[.\w]*\.v4") >= 1, c


def test_a_stem_reads_float32():
    """A model's input as it comes: converted in registers, in flight at four bytes each."""
    for size, kernel, stride, cout in ((224, 7, 2, 64), (224, 3, 2, 32)):
        p = problem(size, 3, cout, kernel, x_first=True, stride=stride, epilogue=Epilogue(True, "", "relu"))
        k = compiled(p, conv.default(p), x_ptr="*fp32")
        assert k.wgmma and k.spills == 0 and k.shared <= sm90.SHARED, (k.n_regs, k.spills, k.shared)


def test_nan_passes_elu():
    """The interpreter's minima all keep NaN; the device's min gives the other number, so no sum may go only through it."""
    types = dict.fromkeys(("p_ptr", "y_ptr", "b_ptr", "r_ptr"), "*fp32") | {"alpha": "fp32", "beta": "fp32", "M": "i32"}
    constants = {"CHANNELS": 64, "SEGMENTS": 2, "BIAS": False, "RES": "", "ACT": "elu", "BM": 16, "BN": 64}
    k = sm90.compile("fastinfer.cuda.kernels.conv_kernel:conv_sum_kernel", types, constants, {"num_warps": 4}, ("M",))
    assert k.spills == 0 and k.count(r"\bmin(\.ftz)?\.f32") == 0
