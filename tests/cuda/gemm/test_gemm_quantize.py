# SPDX-License-Identifier: Apache-2.0
"""Rows in 8 bits: against float64, one pass and two, zeros and NaN."""

import numpy as np
import pytest
import torch
from sm90 import compile

from fastinfer.cuda.device import INTERPRET, open_device
from fastinfer.cuda.kernels import quantize


def _run(x: torch.Tensor, out: torch.dtype, block: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    device = open_device("cuda").torch
    p = quantize.Problem(*x.shape, x.dtype, out)
    config = quantize.default(p) if block is None else quantize.Config(block, 4)
    q = torch.empty(x.shape, dtype=out, device=device)
    scale = torch.full((x.shape[0],), float("nan"), device=device)
    quantize.run(x.to(device), q, scale, problem=p, config=config)
    return q.cpu(), scale.cpu()


@pytest.mark.parametrize("out", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("columns", "block"), [(1, None), (37, None), (64, None), (100, 32)])
def test_rows(out: torch.dtype, dtype: torch.dtype, columns: int, block: int | None) -> None:
    torch.manual_seed(columns)
    x = (torch.randn(3, columns) * torch.tensor([1e-3, 1.0, 300.0])[:, None]).to(dtype)
    q, scale = _run(x, out, block)
    most = x.double().abs().amax(1)
    np.testing.assert_allclose(scale.double(), most / quantize.MOST[out], rtol=1e-6)
    v = x.float() * (quantize.MOST[out] / x.float().abs().amax(1, keepdim=True))
    if out == torch.int8:
        assert bool((v.double() - q.double()).abs().max() <= 0.5001)
        return
    expected = v.clamp(-448, 448).to(out).float()
    # The interpreter forgets to carry into the exponent, and rounds the smallest numbers its own way.
    tie = ((q.float() - v).abs() - (expected - v).abs()).abs() < 1e-4
    own_way = (torch.frexp(expected).exponent != torch.frexp(v).exponent) | (v.abs() < 2**-6)
    assert bool(((q.float() == expected) | tie | (own_way & INTERPRET)).all()) and bool((q.float() == expected).any())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_zeros_and_nan() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, float("nan"), 2.0], [127.0, 0.5, 1.5]])
    q, scale = _run(x, torch.int8)
    assert q[0].tolist() == [0, 0, 0] and scale[0] == 1
    assert torch.isnan(scale[1])
    assert q[2].tolist() == [127, 0, 2]  # to nearest even


def test_weights() -> None:
    w = torch.randn(5, 8)
    w[2] = 0
    for out in (torch.int8, torch.float8_e4m3fn):
        q, scale = quantize.quantize_weight(w, out)
        assert q.dtype == out and scale.shape == (5,) and scale[2] == 1
        assert (q.float() * scale[:, None] - w).abs().max() < w.abs().max() / 16
    assert quantize.quantize_weight(torch.zeros(3, 0), torch.int8)[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("out", "scalar"), [("i8", 127.0), ("fp8e4nv", 448.0)])
def test_compiled(out: str, scalar: float) -> None:
    made = compile(
        "fastinfer.cuda.kernels.quantize:_quantize",
        {"x": "*bf16", "q": "*" + out, "scale": "*fp32", "columns": "i32"},
        {"MOST": scalar, "BLOCK": 4096, "ONCE": True},
        {"num_warps": 8},
    )
    assert made.spills == 0 and made.count(r"ld\.global\.v4") > 0
