# SPDX-License-Identifier: Apache-2.0
"""What default() takes by the cost model, on real shapes; and that it is cheap."""

import math
import time

import pytest
import torch

from fastinfer.cuda.kernels import gemm, gemm_choice
from fastinfer.cuda.kernels.gemm_config import MULTIPROCESSORS, programs
from fastinfer.cuda.kernels.gemm_cost import BYTES, RATE, seconds

BF16 = torch.bfloat16
OPERANDS = {"half": BF16, "tf32": torch.float32, "ieee": torch.float32, "int8": torch.int8, "fp8": torch.float8_e4m3fn}
# (m, n, k, a sample's rows): BERT-base, ViT-B/16, Swin-T, MiniLM at batch 1 and 32, a ResNet-50 head, decoding.
SHAPES = [
    (128, 768, 768, 128), (128, 3072, 768, 128), (128, 768, 3072, 128), (4096, 768, 768, 128), (4096, 3072, 768, 128),
    (4096, 768, 3072, 128), (197, 768, 768, 197), (6304, 2304, 768, 197), (6304, 768, 3072, 197), (1024, 1536, 384, 32),
    (32, 384, 384, 32), (3136, 96, 96, 3136), (100352, 384, 96, 3136), (32, 1000, 2048, 1), (1, 1000, 2048, 1),
    (1, 4096, 4096, 1), (16, 8192, 8192, 1),
]  # fmt: skip


def problem(m: int, n: int, k: int, rows: int, products: str = "half", **more: object) -> gemm.Problem:
    dtype = OPERANDS[products]
    out = torch.float32 if dtype == torch.float32 else BF16
    return gemm.Problem(m, n, k, dtype, out, products, k, k, rows, bias=True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [4096, 8192])
def test_big_products_take_big_tiles(size: int) -> None:
    c = gemm.default(problem(size, size, size, size))
    assert {c.bm, c.bn} == {128, 256} and c.tma and c.variant == "persistent"


@pytest.mark.parametrize("products", OPERANDS)
@pytest.mark.parametrize("m", [1, 4, 16])
def test_few_rows_stream_b(products: str, m: int) -> None:
    """Bytes of B in flight on nearly all multiprocessors: five blocks of k and more where tiles are few."""
    for n in (4096, 8192):
        c = gemm.default(problem(m, n, n, 1, products))
        assert c.bm <= 16 and c.num_stages >= 4 and programs(problem(m, n, n, 1), c) >= 0.8 * MULTIPROCESSORS


def test_defaults_fill_the_device_where_the_tiles_suffice() -> None:
    """At least half of the multiprocessors work, or the next smaller tile would not be predicted to be faster."""
    for shape in SHAPES:
        p = problem(*shape)
        c = gemm.default(p)
        items = programs(p, c) * (gemm.segments(p)[0] if c.variant == "split_k" else 1)
        smallest = min(seconds(p, x) for x in gemm.configs(p) if x.variant != "stream_k")
        assert seconds(p, c) == pytest.approx(smallest)
        assert items >= MULTIPROCESSORS // 2 or p.m * p.n <= MULTIPROCESSORS // 2 * 64 * 64, (shape, str(c))


def test_no_prediction_beats_the_bounds() -> None:
    for products in OPERANDS:
        for shape in SHAPES:
            p = problem(*shape, products)
            operations, read = 2 * p.m * p.n * p.k / RATE[products], p.dtype.itemsize * (p.m * p.k + p.n * p.k) / BYTES
            for c in gemm.configs(p):
                assert math.isfinite(seconds(p, c)) and seconds(p, c) > max(operations, read), (shape, str(c))


def test_default_never_shares_tiles_and_only_segments_are_offered() -> None:
    for any_order in (False, True):
        for shape in [(4352, 4352, 8192, 4352), (4096, 768, 3072, 128)]:
            p = problem(*shape, any_order=any_order)
            assert gemm.default(p).variant != "stream_k"
            offered = any(c.variant == "stream_k" for c in gemm.configs(p))
            assert offered == (any_order or gemm.segments(p)[0] > 1)


def test_no_loop_over_tiles_where_it_would_spill() -> None:
    """Segments and float32 results: 255 registers and more, as compiled."""
    p = problem(4096, 768, 3072, 128, "tf32")
    assert gemm.segments(p)[0] > 1
    assert all(c.variant in ("tiled", "split_k") or c.per_thread <= 32 for c in gemm.configs(p))


def test_choosing_is_cheap() -> None:
    """The best of some rounds: other processes run beside this one. A choice is then kept."""
    problems = [problem(*s) for s in SHAPES]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for p in problems:
            gemm_choice.default.__wrapped__(p)
        times.append((time.perf_counter() - began) / len(problems))
    assert min(times) < 1e-3  # some 0.1 ms where nothing runs beside it
    gemm.default(problems[0])
    hits = gemm_choice.default.cache_info().hits
    gemm.default(problem(*SHAPES[0]))
    assert gemm_choice.default.cache_info().hits == hits + 1
