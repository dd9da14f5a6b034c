# SPDX-License-Identifier: Apache-2.0
"""What ptxas makes of attention on Hopper: wgmma in half precision, no spills, shared memory and registers for two blocks."""

import pytest
import torch
from launched import compiled, empty
from sm90 import SHARED

from fastinfer.cuda.kernels import attention as family
from fastinfer.cuda.kernels import attention_segments as segments
from fastinfer.cuda.kernels import attention_triton
from fastinfer.cuda.kernels.attention import Config, Problem

ALL = ("BSNH",) * 4


def attend(
    dtype, heads, kv_heads, sq, sk, d, *, products="half", mask=None, config=None, lengths=0, layouts=ALL, **attrs
):
    kind = "none" if mask is None else "kept" if mask.dtype == torch.bool else "added"
    at = (0, 0) if lengths else (sq, sk)
    problem = Problem(
        dtype, products, heads, kv_heads, *at, d, d, mask=kind, layouts=layouts, packed=lengths > 0, **attrs
    )

    def make(h, s, layout):
        return empty(*{"BSNH": (1, s, h, d), "BNSH": (1, h, s, d), "BNHS": (1, h, d, s)}[layout], dtype=dtype)

    q, k, v, o = (make(h, s, y) for h, s, y in zip((heads, kv_heads, kv_heads, heads), (sq, sk, sk, sq), layouts))
    given = q, k, v, mask, empty(lengths, dtype=torch.int64) if lengths else None, o, empty(16, dtype=torch.float32)
    config = config or family.default(problem)
    return compiled(attention_triton, lambda: family.run(*given, problem=problem, config=config, scale=0.1))


def check(kernels, wgmma=True):
    for c in kernels:
        assert c.spills == 0 and c.shared <= SHARED, f"{c.name}: {c.spills} bytes spilled, {c.shared} shared"
    assert kernels[0].wgmma == wgmma
    return kernels[0]


@pytest.mark.parametrize("d", [64, 80, 128, 256])
def test_half(d):
    """Also the products' tile loads are asynchronous copies."""
    c = check(attend(torch.bfloat16, 12, 12, 1024, 1024, d))
    assert c.count(r"cp\.async\.cg") > 0 and "mma.sync" not in c.ptx


def test_two_blocks_share_a_multiprocessor():
    c = check(attend(torch.bfloat16, 12, 12, 1024, 1024, 64))
    assert 2 * c.n_regs * 32 * c.num_warps <= 65536 and 2 * c.shared <= SHARED


@pytest.mark.parametrize("shape,dtype", [((1, 1, 512, 512), torch.bfloat16), ((1, 1, 1, 512), torch.bool)], ids=str)
def test_masked(shape, dtype):
    check(attend(torch.bfloat16, 12, 12, 512, 512, 64, mask=empty(*shape, dtype=dtype), causal=True, zero_empty=True))


def test_float16_keys_across():
    check(attend(torch.float16, 12, 4, 512, 512, 64, layouts=("BSNH", "BNHS", "BSNH", "BSNH")))


def test_windows():
    """Swin: 49 tokens are one wgmma tile."""
    check(attend(torch.bfloat16, 3, 3, 49, 49, 32, mask=empty(1, 3, 49, 49)))


@pytest.mark.parametrize("d", [64, 128])
def test_split(d):
    """One query: mma.sync on 16 rows (wgmma has 64), and the combination."""
    kernels = attend(torch.bfloat16, 32, 8, 1, 4096, d)
    assert len(kernels) == 2 and "mma.sync" in kernels[0].ptx
    check(kernels, wgmma=False)


@pytest.mark.parametrize("d,group", [(32, 1), (128, 4)])
def test_packed(d, group):
    check(attend(torch.bfloat16, 4 * group, 4, 512, 512, d, lengths=8))


@pytest.mark.parametrize("variant", ["tiled", "windows", "split", "packed"])
def test_extents_of_one(variant):
    """The launcher makes constants of integers that are 1."""
    config = Config("tiled" if variant == "packed" else variant, 16, 16, 2, 1, splits=2)
    given = dict(causal=True, lengths=int(variant == "packed"), zero_empty=variant == "split")
    assert all(c.spills == 0 for c in attend(torch.float16, 1, 1, 1, 1, 16, config=config, **given))


def test_packed_causal_wide():
    check(attend(torch.bfloat16, 4, 4, 512, 512, 256, lengths=8, causal=True))


@pytest.mark.parametrize("products,d", [("ieee", 64), ("ieee", 256), ("tf32", 64), ("tf32", 128)])
def test_single(products, d):
    kernels = attend(torch.float32, 12, 12, 512, 512, d, products=products)
    c = check(kernels, wgmma=products == "tf32" and d == 64)
    assert ("mma" in c.ptx) == (products == "tf32")


def test_the_largest_candidate():
    check(attend(torch.bfloat16, 12, 12, 512, 512, 64, config=Config("tiled", 128, 128, 8, 2)))


@pytest.mark.parametrize("reduction,dtype", [("mean", torch.bfloat16), ("max", torch.float32), ("sum", torch.int64)])
def test_packed_reduce(reduction, dtype):
    problem = segments.Problem(dtype, reduction, 384)
    given = empty(1, 512, 384, dtype=dtype), empty(8, dtype=torch.int64), empty(1, 8, 384, dtype=dtype)
    (c,) = compiled(segments, lambda: segments.run(*given, problem=problem, config=segments.default(problem)))
    assert c.spills == 0 and c.count(r"ld\.global\.v[24]|ld\.global\.L\S*\.v[24]|ld\.global\S*v[24]") > 0
