# SPDX-License-Identifier: Apache-2.0
"""conv8 by itself: variants and tiles give one result, candidates fit, what the compiler makes of them for Hopper."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import sm90

from fastinfer.cuda.device import open_device
from fastinfer.cuda.kernels import conv8
from fastinfer.cuda.kernels.conv_config import SHARED, runs, shared_bytes
from fastinfer.cuda.kernels.conv_geometry import window_of
from fastinfer.cuda.kernels.requantize import NAMES, End, Numbers

TYPES = {
    torch.uint8: "*u8", torch.int8: "*i8", torch.float8_e4m3fn: "*fp8e4nv", torch.int32: "*i32", torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
}  # fmt: skip
SIZES = ("M", "tiles", "column_tiles", "D", "H", "W", "OD", "OH", "OW", "zero")


def problem(size, cin, cout, kernel, batch=1, dtype=torch.uint8, end=End(), out=torch.uint8, stride=1):  # noqa: B008
    extent = -(-size // stride)
    window = window_of((size, size), (extent, extent), (kernel, kernel), (stride, stride), None, (kernel // 2,) * 4)
    products = "fp8" if dtype == torch.float8_e4m3fn else "int8"
    return conv8.Problem(dtype, products, batch, window, 1, cin, cout, out, end)


def compiled(p, c):
    types = dict.fromkeys(("x_ptr", "pad_ptr"), TYPES[p.dtype]) | dict.fromkeys(("y_ptr", "r_ptr"), TYPES[p.out])
    types |= {
        "w_ptr": TYPES[p.dtype] if p.products == "fp8" else "*i8",
        "p_ptr": "*fp32" if p.products == "fp8" else "*i32",
    }
    types |= {"a_zero": "*u8", **dict.fromkeys(("start", "sums", "zeros"), "*i32")}
    types |= (
        dict.fromkeys(("scale", "a_scale", "bias"), "*fp32")
        | dict.fromkeys(NAMES, "fp32")
        | dict.fromkeys(SIZES, "i32")
    )
    options = {"num_warps": c.warps, "num_stages": c.stages, "enable_fp_fusion": False}
    return sm90.compile(
        "fastinfer.cuda.kernels.conv8_kernel:conv8_kernel", types, conv8.constants(p, c), options, SIZES
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_variants_give_the_same_bits(dtype):
    rng, device = np.random.default_rng(0), open_device("cuda").torch
    p = problem(3, 64, 20, 3, 2, dtype, out=torch.int32)
    p = dataclasses.replace(p, cin=160)
    info = torch.iinfo(dtype)
    x = torch.from_numpy(rng.integers(info.min, info.max + 1, (2, 3, 3, 160))).to(dtype).to(device)
    w = torch.from_numpy(rng.integers(-128, 128, (20, 160, 3, 3))).to(torch.int8).to(device)
    zero = 9
    pad = torch.full((conv8.pad_bytes(p),), zero, dtype=dtype, device=device)
    start = -(zero - (128 if dtype == torch.uint8 else 0)) * w.to(torch.int32).sum((1, 2, 3), dtype=torch.int32)
    want = torch.nn.functional.conv2d(x.movedim(-1, 1).double() - zero, w.double(), padding=1).movedim(1, -1)
    assert runs(p) > 1
    for variant in ("tiled", "persistent", "split"):
        for block_m, block_n in ((16, 16), (32, 16)):
            c = conv8.Config(block_m, block_n, conv8.block_k(p), 4, 2, variant)
            y = torch.full((2, 3, 3, 20), -1, dtype=torch.int32, device=device)
            partial = torch.full((conv8.workspace(p, c),), 255, dtype=torch.uint8, device=device)
            conv8.run(x, conv8.lay_out_weights(w, p), pad, y, partial, start, None, None, None, None, None, None, None,
                      problem=p, config=c, numbers=Numbers())  # fmt: skip
            assert torch.equal(y.double(), want), (variant, block_m)


RESNET = {
    "stem": problem(224, 3, 64, 7, 32, stride=2),
    "56_3x3": problem(56, 64, 64, 3, 32),
    "14_3x3": problem(14, 256, 256, 3, 32, end=End(residual="inner")),
    "7_3x3": problem(7, 512, 512, 3),
    "wide_1x1": problem(14, 256, 1024, 1, 32, end=End(residual="plain")),
    "signed": problem(14, 256, 256, 3, 32, torch.int8, out=torch.int8),
    "floats": problem(14, 256, 256, 1, 32, end=End(bias=True, dynamic=True), out=torch.float32),
    "row_sums": problem(14, 256, 256, 3, 32, end=End(row_sums=True)),
}


SCALED = End("scaled", True, "before", "relu")
FLOATS = {
    "int8": problem(14, 256, 256, 3, 32, torch.int8, SCALED, torch.bfloat16),
    "fp8": problem(14, 256, 256, 3, 32, torch.float8_e4m3fn, SCALED, torch.bfloat16),
    "fp8_7": problem(7, 512, 512, 3, 1, torch.float8_e4m3fn, SCALED, torch.bfloat16),
}


@pytest.mark.parametrize("name", FLOATS)
def test_scaled_ends(name):
    p = FLOATS[name]
    found = conv8.configs(p)
    largest = max(found, key=lambda c: (c.block_m * c.block_n / c.warps, c.variant != "split", c.stages))
    kind = "f32.e4m3.e4m3" if p.products == "fp8" else "s32.s8.s8"
    for c in {found[0], largest}:
        k = compiled(p, c)
        assert k.count(r"wgmma\.mma_async\.\S*\." + kind) > 0 and k.count(r"mma\.sync") == 0, c
        assert k.spills == 0 and k.shared <= sm90.SHARED, (c, k.n_regs, k.spills, k.shared)


@pytest.mark.parametrize("name", RESNET)
def test_integer_matrix_units(name):
    """The default, and the candidate with the most accumulators."""
    p = RESNET[name]
    found = conv8.configs(p)
    assert conv8.default(p) == found[0] and len(found) <= 24
    assert all(shared_bytes(p, c) <= SHARED for c in found)
    largest = max(found, key=lambda c: (c.block_m * c.block_n / c.warps, c.variant != "split", c.stages))
    for c in {found[0], largest}:
        k = compiled(p, c)
        assert k.count(r"wgmma\.mma_async\.\S*\.s32\.s8\.s8") > 0 and k.count(r"mma\.sync") == 0, c
        assert k.spills == 0 and k.shared <= sm90.SHARED, (c, k.n_regs, k.spills, k.shared)
        assert k.count(r"fma\.rn\.f32") == 0  # each product and sum rounds by itself
        if p.mode != "gather":
            assert k.count(r"cp\.async\.cg\.shared\.global \[[^\]]*\], \[[^\]]*\], 0x10") > 0, c


def test_new_sizes_and_numbers_are_the_same_kernel():
    a, b = problem(72, 64, 64, 3, 8), problem(80, 64, 64, 3, 9)
    assert conv8.constants(a, conv8.default(a)) == conv8.constants(b, conv8.default(b))
