# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing compiled for Hopper, without one: 16 bytes per load and store, nothing in local memory."""

import sys
from pathlib import Path

import torch

from fastinfer.cuda.kernels import pool, resize
from fastinfer.cuda.kernels.conv_geometry import window_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import sm90


def check(kernel, integers, constants, warps, loads, floats=(), data="*bf16"):
    types = {"x_ptr": data, "y_ptr": data, **dict.fromkeys(integers, "i32"), **dict.fromkeys(floats, "fp32")}
    k = sm90.compile(f"fastinfer.cuda.kernels.{kernel}", types, constants, {"num_warps": warps}, integers)
    assert k.spills == 0 and k.shared <= sm90.SHARED
    assert k.count(r"ld\.global[.\w]*\.v4") >= loads, k.ptx.count("ld.global")
    return k


def test_windows():
    p = pool.Problem("max", torch.bfloat16, 8, 64, window_of((112, 112), (56, 56), (3, 3), (2, 2), None, (1, 1, 1, 1)))
    c = pool.default(p)
    k = check("pool:pool_kernel", ("M", "D", "H", "W", "OD", "OH", "OW"), pool.window_constants(p, c), c.warps, 9)
    assert k.count(r"st\.global[.\w]*\.v4") == 1


def test_windows_of_bytes():
    p = pool.Problem("max", torch.uint8, 8, 64, window_of((112, 112), (56, 56), (3, 3), (2, 2), None, (1, 1, 1, 1)))
    c, integers = pool.default(p), ("M", "D", "H", "W", "OD", "OH", "OW")
    check("pool:pool_kernel", integers, pool.window_constants(p, c), c.warps, 9, data="*u8")


def test_whole_images():
    p = pool.Problem("average", torch.bfloat16, 8, 96, window_of((56, 56), (1, 1), (56, 56)), whole=True)
    c = pool.default(p)
    constants = {"C": 96, "RUNS": pool.runs(p), "KIND": "average", "BP": c.block_p, "BC": c.block_c}
    check("pool:whole_kernel", ("PIXELS",), constants, c.warps, 1, ("divisor",))


def test_nan_stays_in_whole_images():
    """The interpreter's maxima all keep NaN; the device has one that does and one that does not."""
    constants = {"C": 96, "RUNS": 1, "KIND": "max", "BP": 16, "BC": 64}
    k = check("pool:whole_kernel", ("PIXELS",), constants, 4, 1, ("divisor",))
    assert k.count(r"max\.NaN\.") > 0 and k.count(r"max(\.ftz)?\.(f32|bf16)") == 0


def test_resizes():
    axis = resize.axis_of(40, 80, "half_pixel")
    p = resize.Problem("linear", torch.bfloat16, 8, 64, axis, axis)
    c = resize.default(p)
    integers = ("M", "H", "W", "OH", "OW", "ha", "hb", "hc", "wa", "wb", "wc")
    k = check("resize:resize_kernel", integers, resize.constants(p, c), c.warps, 4)
    assert k.count(r"st\.global[.\w]*\.v4") == 1
