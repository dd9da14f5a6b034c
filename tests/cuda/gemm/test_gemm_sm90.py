# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of the matrix product for Hopper: tensor cores' wgmma, the copy engine, no spills, shared memory."""

import dataclasses

import pytest
import torch
from gemm_compiled import compiled, compiled_reduction
from sm90 import SHARED

from fastinfer.cuda.kernels import gemm
from fastinfer.cuda.kernels.gemm_config import shared

BF16, F32 = torch.bfloat16, torch.float32
EPILOGUE = {"bias": True, "residual": "before", "activation": "relu"}


def problem(m: int, n: int, k: int, rows: int, **more: object) -> gemm.Problem:
    given = {"dtype": BF16, "out": BF16, "products": "half", "residual_strides": (0, n, 1), **EPILOGUE, **more}
    return gemm.Problem(m=m, n=n, k=k, lda=k, ldb=k, rows=rows, **given)  # type: ignore[arg-type]


BIG = problem(4096, 4096, 4096, 4096)
BERT = problem(128, 768, 3072, 128)
BERT32 = problem(4096, 768, 3072, 128)
CONFIGS = {
    "big": (BIG, dataclasses.replace(gemm.default(BIG), variant="tiled")),
    "persistent": (BIG, gemm.default(BIG)),
    "pointers": (BIG, gemm.Config(128, 128, 64, 8, 4)),
    "split": (BERT, gemm.default(BERT)),
    "segments": (BERT, dataclasses.replace(gemm.default(BERT), variant="tiled")),
    "persistent segments": (BERT32, gemm.default(BERT32)),
    "two blocks": (BIG, gemm.Config(128, 128, 64, 8, 3, tma=True)),
    "high": (BIG, gemm.Config(256, 128, 64, 8, 3, "persistent", tma=True)),
    "fp8 in runs": (
        problem(4096, 4096, 4096, 4096, dtype=torch.float8_e4m3fn, products="fp8"), gemm.Config(128, 128, 128, 8, 4, "persistent", tma=True),
    ),
    "gelu": (
        problem(4096, 3072, 768, 128, residual="", activation="gelu"), gemm.Config(128, 256, 64, 8, 3, "persistent", tma=True),
    ),
    "tf32": (problem(512, 768, 768, 128, dtype=F32, out=F32, products="tf32"), gemm.Config(64, 64, 32, 4, 5, tma=True)),
    "int8": (problem(512, 768, 768, 128, dtype=torch.int8, products="int8"), gemm.Config(64, 64, 128, 4, 5, tma=True)),
    "fp8": (
        problem(512, 768, 768, 128, dtype=torch.float8_e4m3fn, products="fp8"), gemm.Config(64, 64, 128, 4, 5, tma=True),
    ),
    "batched": (
        dataclasses.replace(problem(128, 128, 64, 128), trans_b=False, ldb=128, residual="", batch=((384, 8192, 8192),)),
        gemm.Config(128, 64, 64, 4, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_wgmma_without_spills(name: str) -> None:
    p, c = CONFIGS[name]
    made = compiled(p, c)
    assert made.wgmma and made.count(r"mma\.sync") == 0
    assert made.spills == 0
    assert made.shared <= shared(p, c) <= SHARED
    # Steady state: the tensor cores have a block while the next one's wgmma are issued; only Triton's int32 sums wait each time.
    assert (made.count(r"wgmma\.wait_group\.sync\.aligned 1;") > 0) == (p.products != "int8")
    copies = made.count(r"cp\.async\.bulk\.tensor")
    assert copies > 0 if c.tma else copies == 0 and made.count(r"cp\.async\.cg") > 0


def test_defaults_are_what_was_meant() -> None:
    assert CONFIGS["persistent"][1] == gemm.Config(128, 256, 64, 8, 3, "persistent", tma=True)
    assert CONFIGS["split"][1].variant == "split_k"
    assert CONFIGS["persistent segments"][1].variant == "persistent" and gemm.segments(BERT32)[0] > 1


@pytest.mark.parametrize(
    ("products", "dtype"), [("half", BF16), ("int8", torch.int8), ("fp8", torch.float8_e4m3fn), ("ieee", F32)]
)
def test_few_rows_stream_b(products: str, dtype: torch.dtype) -> None:
    """One row: B goes by 16 bytes at a time, several stages ahead, through tensor cores but in float32."""
    p = problem(1, 4096, 4096, 1, products=products, dtype=dtype, out=F32 if products == "ieee" else BF16)
    c = gemm.default(p)
    made = compiled(p, c)
    assert made.spills == 0 and made.shared <= shared(p, c) <= SHARED
    assert made.count(r"cp\.async\.cg") > 0 and c.num_stages >= 3
    assert (made.count(r"mma\.sync") > 0) == (products != "ieee")


@pytest.mark.parametrize(("products", "dtype"), [("half", BF16), ("int8", torch.int8)])
def test_reduction(products: str, dtype: torch.dtype) -> None:
    made = compiled_reduction(dataclasses.replace(BERT, products=products, dtype=dtype))
    assert made.spills == 0 and made.count(r"ld\.global(\.\w+)*\.v4") > 0


@pytest.mark.parametrize("name", ["n", "k", "nk"])
def test_extents_of_one_and_absent_operands(name: str) -> None:
    """The launcher makes constants of them."""
    n, k = (1 if axis in name else 24 for axis in "nk")
    absent: dict[str, object] = dict.fromkeys(["bias", "residual", "a_scale", "b_scale"])
    ones = {"inner": 1, **({"n": 1} if n == 1 else {}), **({"k": 1, "lda": 1, "ldb": 1} if k == 1 else {})}
    p = problem(3, n, k, 1, bias=False, residual="", activation="")
    for variant in ("tiled", "persistent"):
        c = dataclasses.replace(gemm.default(p), variant=variant)
        assert compiled(p, c, {**absent, **ones}).spills == 0
    batched = dataclasses.replace(p, batch=((4, 3 * k, n * k),))
    assert compiled(batched, gemm.default(batched), {**absent, **ones, "a_inner": 1}).spills == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_candidate(name: str) -> None:
    p, _ = CONFIGS[name]
    for c in gemm.configs(p):
        made = compiled(p, c)
        assert made.shared <= shared(p, c) <= SHARED and made.spills == 0, c
