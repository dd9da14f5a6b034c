# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of depthwise8 and gemm8 for Hopper."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import sm90

from fastinfer.cuda.kernels import depthwise8, gemm8
from fastinfer.cuda.kernels.conv_geometry import window_of
from fastinfer.cuda.kernels.requantize import NAMES, End

NUMBERS = {n: "fp32" for n in NAMES[:9]} | {"zero": "i32"}


@pytest.mark.parametrize(("size", "kernel", "stride"), [(112, 3, 1), (56, 3, 2), (28, 5, 1)])
def test_depthwise(size, kernel, stride):
    extent = -(-size // stride)
    window = window_of((size, size), (extent, extent), (kernel, kernel), (stride, stride), None, (kernel // 2,) * 4)
    p = depthwise8.Problem(torch.uint8, torch.uint8, 8, window, 96, End(residual="inner"))
    sizes = ("H", "W", "OH", "OW", "row_blocks", "column_blocks")
    types = dict.fromkeys(("x_ptr", "y_ptr", "r_ptr"), "*u8") | {"w_ptr": "*fp32", "start": "*i32", "scale": "*fp32"}
    types |= {"x_zero": "fp32", **NUMBERS, **dict.fromkeys(sizes, "i32")}
    for c in {c.rows: c for c in reversed(depthwise8.configs(p))}.values():
        options = {"num_warps": c.warps, "enable_fp_fusion": False}
        name = "fastinfer.cuda.kernels.depthwise8:depthwise8_kernel"
        k = sm90.compile(name, types, depthwise8.constants(p, c), options, (*sizes, "zero"))
        assert k.spills == 0, (c, k.n_regs)
        assert k.count(r"ld\.global[.\w]*\.b32") >= 3 and k.count(r"ld\.global[.\w]*\.b8") == 0, (
            c
        )  # 4 channels and more
        assert k.count(r"fma\.rn\.f32") >= kernel * kernel * 8


PRODUCTS = {
    "scores": gemm8.Problem(128, 128, 64, torch.uint8, torch.uint8, torch.uint8, True, ((384, 8192, 8192),)),
    "values": gemm8.Problem(128, 64, 128, torch.uint8, torch.uint8, torch.uint8, False, ((384, 16384, 8192),)),
    "ragged": gemm8.Problem(197, 197, 64, torch.uint8, torch.uint8, torch.uint8, False, ((12, 12608, 12608),)),
    "signed": gemm8.Problem(128, 128, 64, torch.int8, torch.int8, torch.int8, True, ((384, 8192, 8192),)),
    "residual": gemm8.Problem(512, 512, 512, torch.uint8, torch.int8, torch.uint8, True, (), End(residual="inner")),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_activations(name):
    p = PRODUCTS[name]
    kinds = {torch.uint8: "*u8", torch.int8: "*i8"}
    strides = ("inner", "a_outer", "a_inner", "b_outer", "b_inner")
    types = {
        "a": "*i8",
        "b": "*i8",
        "c": kinds[p.out],
        "r": "*u8",
        "start": "*i32",
        "scale": "*fp32",
        "a_sums": "*i32",
        "b_sums": "*i32",
    }
    types |= {"za": "i32", "zb": "i32", **NUMBERS, **dict.fromkeys(("m", "n", "k", "row_bytes", *strides), "i32")}
    unaligned = ["m", "k", "za", "zb", "zero", *strides, *["n"][: p.n % 16]]
    found = gemm8.configs(p)
    for c in {found[0], max(found, key=lambda c: c.bm * c.bn / c.num_warps)}:
        options = {"num_warps": c.num_warps, "num_stages": c.num_stages, "enable_fp_fusion": False}
        k = sm90.compile(
            "fastinfer.cuda.kernels.gemm8:gemm8_kernel", types, gemm8.constants(p, c), options, tuple(unaligned)
        )
        assert k.spills == 0 and k.shared <= sm90.SHARED, (c, k.n_regs, k.spills, k.shared)
        assert k.count(r"wgmma\.mma_async\.\S*\.s32\.s8\.s8") > 0 and k.count(r"mma\.sync") == 0, c
        assert k.count(r"cp\.async\.cg\.shared\.global \[[^\]]*\], \[[^\]]*\], 0x10") > 0, c  # 16 bytes at a time


@pytest.mark.parametrize("down", [False, True])
def test_signed_copies(down):
    types = {"x": "*u8", "copy": "*i8", "sums": "*i32", **dict.fromkeys(("rows", "k", "n", "row_bytes"), "i32")}
    flags = {"FLIP": True, "DOWN": down, "BR": 32, "BK": 32}
    assert sm90.compile("fastinfer.cuda.kernels.gemm8:signed_kernel", types, flags, {"num_warps": 4}).spills == 0
