# SPDX-License-Identifier: Apache-2.0
"""stream_k: the partition covers every block once; results against float64 in workspaces and outputs of NaNs; with segments its
bits are those of the other variants; what the compiler makes of it."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from gemm_cases import make
from gemm_compiled import compiled, compiled_mending
from sm90 import SHARED

from fastinfer.cuda.kernels import gemm, gemm_config

HALF = {"dtype": torch.bfloat16, "products": "half"}
BF16 = torch.bfloat16


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of k is enough for a program, so that small problems are shared by many."""
    monkeypatch.setattr(gemm_config, "_LEAST", 1)


def stream(programs: int, bm: int = 16, bn: int = 32, bk: int = 16, tma: bool = False) -> gemm.Config:
    return gemm.Config(bm, bn, bk, 4, 3, "stream_k", tma, group=2, programs=programs)


def test_the_partition_covers_every_block_once() -> None:
    """As _share and _mend compute it: slots are written once, and a tile's are those that its programs wrote."""
    r = random.Random(3)
    for _ in range(300):
        tiles, k, programs = r.randint(1, 40), r.randint(1, 3000), r.randint(1, 12)
        p = gemm.Problem(16 * tiles, 32, k, BF16, BF16, "half", k, k, rows=20000)
        c = stream(programs)
        found = gemm_config.stream(p, c)
        if found is None:
            assert tiles % programs == 0
            continue
        units, written = -(-k // 16), {}
        assert found.full % programs == 0 and found.full + found.rest == tiles and 1 <= found.streams <= programs
        for q in range(found.streams):
            begin, end = (x * found.rest * units // found.streams for x in (q, q + 1))
            assert begin < end
            for tile in range(begin // units, -(-end // units)):
                part = range(max(begin - tile * units, 0), min(end - tile * units, units))
                assert len(part) and q + tile not in written and q + tile < found.slots
                written[q + tile] = tile, part
        for tile in range(found.rest):
            first = ((tile * units + 1) * found.streams - 1) // (found.rest * units)
            last = ((tile + 1) * units * found.streams - 1) // (found.rest * units)
            parts = [written.pop(tile + q) for q in range(first, last + 1)]
            assert [t for t, _ in parts] == [tile] * len(parts)
            assert [b for _, part in parts for b in part] == list(range(units))
        assert not written


@pytest.mark.parametrize("tma", [False, True])
@pytest.mark.parametrize("programs", [3, 5, 7])
def test_blocks_are_shared(tiny: None, programs: int, tma: bool) -> None:
    """6 tiles: one full wave and a rest, or a rest alone, over borders of tiles."""
    case = make(40, 60, 136, **HALF, out=torch.float32, bias=True, residual="before", activation="relu", alpha=0.5)
    config = stream(programs, tma=tma)
    found = gemm_config.stream(case.problem, config)
    assert (found is None) == (programs == 3) and gemm.segments(case.problem)[0] == 1
    case.check(config)


@pytest.mark.parametrize("residual", ["", "before", "after"])
@pytest.mark.parametrize("activation", ["", "gelu", "clip"])
def test_epilogues(tiny: None, residual: str, activation: str) -> None:
    case = make(
        33, 70, 100, residual=residual, activation=activation, act=(-0.5, 1.0), alpha=0.15, beta=-0.5, bias=activation != "",
        strides=(0, 1) if residual == "after" else None,
    )  # fmt: skip
    case.check(stream(4))


def test_random_shapes(tiny: None) -> None:
    r = random.Random(11)
    for seed in range(10):
        m, n, k = r.randint(1, 60), r.randint(1, 90), r.randint(1, 90)
        case = make(
            m, n, k, trans_a=r.random() < 0.5, trans_b=r.random() < 0.5, bias=r.random() < 0.5, seed=seed, rows=20000,
            residual=r.choice(["", "before", "after"]),
        )  # fmt: skip
        case.check(stream(r.choice([1, 2, 4, 5])))


def test_what_cannot_be_shared_is_computed_whole() -> None:
    make(20, 40, 0, bias=True).check(stream(3))
    make(20, 40, 24, batch=(3,)).check(stream(5))
    for case in (make(20, 40, 0), make(20, 40, 24, batch=(3,))):
        assert gemm.workspace(case.problem, stream(5)) == 0


@pytest.mark.parametrize("products", ["int8", "fp8"])
def test_eight_bits(tiny: None, products: str) -> None:
    make(20, 70, 100, products=products, bias=True, activation="gelu").check(stream(4, bk=32))
    make(20, 37, 1100, products=products, rows=1, bias=True).check(stream(3, bk=64))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("tma", [False, True])
def test_shared_segments_have_the_bits_of_all_variants(tma: bool) -> None:
    batch = make(40, 40, 1104, **HALF, rows=1, bias=True, activation="silu")
    assert gemm.segments(batch.problem)[0] == 2
    outs = [
        batch.run(dataclasses.replace(stream(5, bk=64, tma=tma), variant=v)) for v in ("tiled", "split_k", "stream_k")
    ]
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])


def big(m: int, n: int, k: int, rows: int, **more: object) -> gemm.Problem:
    given = {
        "dtype": BF16, "out": BF16, "products": "half", "residual_strides": (0, n, 1), "bias": True, "residual": "before",
        "activation": "relu", **more,
    }  # fmt: skip
    return gemm.Problem(m=m, n=n, k=k, lda=k, ldb=k, rows=rows, **given)  # type: ignore[arg-type]


COMPILED = {
    "blocks": (big(4224, 4352, 8192, 4224), gemm.Config(128, 256, 64, 8, 3, "stream_k", True, programs=132)),
    "segments": (big(4096, 768, 3072, 128), gemm.Config(128, 128, 64, 8, 4, "stream_k", True, programs=132)),
    "pointers": (big(4224, 4352, 8192, 4224), gemm.Config(128, 128, 64, 8, 4, "stream_k", False, programs=132)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_compiled(name: str) -> None:
    p, c = COMPILED[name]
    made = compiled(p, c)
    assert made.wgmma and made.count(r"mma\.sync") == 0 and made.spills == 0
    assert made.shared <= gemm_config.shared(p, c) <= SHARED
    mending = compiled_mending(p, c)
    assert mending.spills == 0 and mending.count(r"ld\.global(\.\w+)*\.v4") > 0
