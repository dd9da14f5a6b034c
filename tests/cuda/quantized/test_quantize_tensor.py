# SPDX-License-Identifier: Apache-2.0
"""One scale per sample, and DynamicQuantizeLinear with what follows it: the CPU's bits."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from quantized_cases import F, bits, on_both

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import sm90

from fastinfer.cuda.device import INTERPRET, open_device
from fastinfer.cuda.kernels import quantize_tensor
from fastinfer.cuda.kernels.quantize import MOST


def quantised(x, out, config):
    device = open_device("cuda").torch
    p = quantize_tensor.Problem(x.shape[0], x[0].numel(), x.dtype, out)
    q, scale = torch.empty(x.shape, dtype=out, device=device), torch.full((x.shape[0],), float("nan"), device=device)
    work = torch.full((quantize_tensor.workspace(p, config),), 255, dtype=torch.uint8, device=device)
    quantize_tensor.run(x.to(device), q, scale, None, work, problem=p, config=config)
    return q.cpu(), scale.cpu()


@pytest.mark.parametrize("out", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("elements", [1, 37, 700])
def test_samples(elements, dtype, out):
    torch.manual_seed(elements)
    x = (torch.randn(3, elements) * torch.tensor([1e-3, 1.0, 300.0])[:, None]).to(dtype)
    q, scale = quantised(x, out, quantize_tensor.Config(64, 2, 2))
    np.testing.assert_allclose(scale.double(), x.double().abs().amax(1) / MOST[out], rtol=1e-6)
    off = (x.double() - q.double() * scale.double()[:, None]).abs() / scale.double()[:, None]
    if out == torch.int8:
        assert bool((off <= 0.5001).all())
    elif not INTERPRET:  # whose conversion to fp8 forgets to carry into the exponent
        assert bool((off <= 16.01).all())
    alone, own = quantised(x[1:2], out, quantize_tensor.Config(256, 1, 2))
    assert torch.equal(alone[0].view(torch.uint8), q[1].view(torch.uint8)) and own[0] == scale[1]


def test_zeros_and_ties():
    q, scale = quantised(
        torch.tensor([[0.0, 0.0, 0.0], [127.0, 0.5, -1.5]]), torch.int8, quantize_tensor.Config(64, 1, 2)
    )
    assert q.tolist() == [[0, 0, 0], [127, 0, -2]] and scale.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["both", "positive", "negative", "zeros", "ties"])
def test_dynamic_quantize_linear(kind):
    x = np.random.default_rng(1).standard_normal((3, 50)).astype(F)
    x = {"positive": abs(x), "negative": -abs(x), "zeros": 0 * x, "both": x, "ties": np.rint(x * 100) / F(2)}[kind]
    on_both("DynamicQuantizeLinear", [x.astype(F)], (), kernel="triton_quantize", n_outputs=3)


def test_dynamic_quantize_matmul():
    rng = np.random.default_rng(2)
    sb, zb, bias = rng.uniform(0.01, 0.03, 18).astype(F), bits(rng, np.int8, 18), rng.standard_normal(18).astype(F)
    for zero, offset in ((zb, bias), (None, None)):
        inputs = [rng.standard_normal((2, 5, 33)).astype(F), bits(rng, np.int8, 33, 18), sb, zero, offset]
        constants = [i for i in range(1, 5) if inputs[i] is not None]
        on_both("DynamicQuantizeMatMul", inputs, constants, kernel="triton_gemm8", domain="com.microsoft")


def test_candidates():
    for samples, elements in ((1, 56 * 56 * 256), (32, 7 * 7 * 512), (1, 1), (8, 1 << 28), (1, 0)):
        p = quantize_tensor.Problem(samples, elements, torch.bfloat16, torch.int8)
        found = quantize_tensor.configs(p)
        assert 0 < len(found) <= 24 and all(quantize_tensor.chunks(p, c) <= quantize_tensor.MAX_CHUNKS for c in found)
    p = quantize_tensor.Problem(1, 56 * 56 * 256, torch.bfloat16, torch.int8)
    assert quantize_tensor.chunks(p, quantize_tensor.default(p)) >= 2 * 132


def test_more_samples_than_a_grid_has_rows(monkeypatch):
    grids = []
    monkeypatch.setattr(quantize_tensor, "launch", lambda kernel, grid: grids.append(grid) or (lambda *a, **k: None))
    p = quantize_tensor.Problem(1 << 17, 48, torch.bfloat16, torch.int8)
    x = torch.empty(0)
    quantize_tensor.run(x, x, x, None, x, problem=p, config=quantize_tensor.default(p))
    assert [grid[0] for grid in grids] == [1 << 17] * 2 and all(grid[1] <= 65535 for grid in grids)


@pytest.mark.parametrize(("out", "form"), [("i8", "scaled"), ("fp8e4nv", "scaled"), ("u8", "linear")])
def test_compiled(out, form):
    sizes = {"BLOCK": 2048, "BLOCKS": 4, "CHUNKS": 300}
    options, module = {"num_warps": 4, "enable_fp_fusion": False}, "fastinfer.cuda.kernels.quantize_tensor"
    types = {"x": "*bf16", "ranges": "*fp32", "elements": "i32"}
    first = sm90.compile(f"{module}:range_kernel", types, sizes, options)
    types |= {"q": "*" + out, "scale": "*fp32", "zero": "*u8"}
    second = sm90.compile(
        f"{module}:quantise_kernel", types, {**sizes, "WIDTH": 512, "FORM": form, "MOST": 127.0}, options
    )
    for made in (first, second):
        assert made.spills == 0 and made.count(r"ld\.global\.v4") > 0
