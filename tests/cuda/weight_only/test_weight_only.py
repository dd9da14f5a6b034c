# SPDX-License-Identifier: Apache-2.0
"""MatMulNBits: the Triton kernels against float64, and through the plan."""

import numpy as np
import pytest
import torch
from cuda_nodes import run_node
from sm90 import SHARED, compile

from fastinfer.cuda import native
from fastinfer.cuda.device import open_device
from fastinfer.cuda.kernels import weight_only as family
from fastinfer.cuda.kernels import wna16

DEVICE = open_device("cuda").torch  # the CPU under the interpreter
TYPES = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}


class Case:
    def __init__(self, m, n, k, bits, block, zeros, dtype=torch.float32, bias=True):
        rng = np.random.default_rng(n + k + bits)
        self.n, self.k, self.bits, self.block, self.zeros = n, k, bits, block, zeros
        blocks = -(-k // block)
        self.q = rng.integers(0, 256, (n, blocks, block * bits // 8), dtype=np.uint8)
        self.scales = (rng.random((n, blocks)) * 0.1 + 0.01).astype(np.float16).astype(np.float32)
        packed = -(-blocks * bits // 8)
        self.zero_points = {
            "none": None,
            "int": rng.integers(0, 256, (n, packed), dtype=np.uint8),
            "float": rng.normal(2**bits / 2, 3, (n, blocks)).astype(np.float32),
        }[zeros]
        self.a = torch.from_numpy(rng.normal(size=(m, k))).to(dtype)
        self.bias = torch.from_numpy(rng.normal(size=n)).to(dtype) if bias else None

    def expected(self):
        fields = lambda x, count: family.unpack(torch.from_numpy(x), self.bits, count).double()  # noqa: E731
        n, blocks = self.scales.shape
        q = fields(self.q.reshape(n, -1), blocks * self.block).reshape(n, blocks, -1)
        zero = {
            "none": lambda: torch.full((n, blocks), 2.0 ** (self.bits - 1)).double(),
            "int": lambda: fields(self.zero_points, blocks),
            "float": lambda: torch.from_numpy(self.zero_points).double(),
        }[self.zeros]()
        w = ((q - zero[:, :, None]) * torch.from_numpy(self.scales).double()[:, :, None]).reshape(n, -1)[:, : self.k]
        return self.a.double() @ w.T + (0 if self.bias is None else self.bias.double())

    def problem(self, sample_rows):
        dtype = str(self.a.dtype).removeprefix("torch.")
        m = self.a.shape[0]
        return family.Problem(
            m, self.n, self.k, self.bits, self.block, dtype, self.zeros, self.bias is not None, sample_rows
        )

    def run(self, config, sample_rows=1):
        """What the kernel computes, on the CPU."""
        p, n = self.problem(sample_rows), self.n
        y = torch.full((p.m, n), float("nan"), dtype=self.a.dtype, device=DEVICE)
        size = family.workspace(p, config)
        partial = torch.full((size,), 0xA5, dtype=torch.uint8, device=DEVICE) if size else None
        zeros = None
        if self.zero_points is not None:
            zeros = family.pack_zeros(torch.from_numpy(self.zero_points).to(DEVICE), n, self.bits, self.scales.shape[1])
        words = family.pack_words(torch.from_numpy(self.q).to(DEVICE), n, self.k, self.bits, self.block)
        scales = family.pack_scales(torch.from_numpy(self.scales).to(DEVICE), n)
        bias = None if self.bias is None else self.bias.to(DEVICE)
        family.run(self.a.to(DEVICE), words, scales, zeros, bias, y, partial, problem=p, config=config)
        return y.cpu()


def error(y, expected):
    return float((y.double() - expected).norm() / expected.norm())


DECODE = family.Config("decode", 16, 32, 1, 4, 3)
SPLIT = family.Config("decode", 16, 32, 2, 4, 3)
TILED = family.Config("tiled", 32, 32, 1, 4, 3)
# The interpreter cuts what it stores as bfloat16.
LIMITS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(
    "m,n,k,bits,block,zeros,config",
    [
        (1, 40, 300, 4, 32, "none", DECODE), (3, 32, 520, 4, 64, "int", SPLIT), (2, 7, 77, 4, 16, "int", DECODE),
        (1, 33, 600, 4, 256, "float", SPLIT), (5, 32, 129, 8, 32, "int", SPLIT), (1, 32, 256, 8, 128, "none", DECODE),
        (35, 32, 300, 4, 128, "int", TILED), (33, 40, 100, 8, 16, "none", TILED), (2, 32, 1000, 4, 1024, "int", SPLIT),
    ],
)  # fmt: skip
def test_against_float64(dtype, m, n, k, bits, block, zeros, config):
    case = Case(m, n, k, bits, block, zeros, dtype)
    y = case.run(config)
    assert not y.isnan().any()
    assert error(y, case.expected()) < LIMITS[dtype]


def test_decode_rounds_no_weight():
    """In half types the only roundings are float32 sums and the result's; float32 partial sums show it."""
    case = Case(2, 32, 512, 4, 64, "int", torch.float16)
    assert torch.allclose(case.run(DECODE).double(), case.expected(), rtol=2.0**-11, atol=1e-4)


def test_a_row_does_not_depend_on_the_others():
    case = Case(18, 32, 512, 4, 128, "int", torch.float16)
    whole = case.run(SPLIT)
    case.a = case.a[17:]
    assert torch.equal(case.run(SPLIT), whole[17:])


def test_words():
    q = torch.randint(0, 256, (5, 3, 64), dtype=torch.uint8)  # 5 columns, 3 blocks of 128
    words, flat = family.pack_words(q, 5, 300, 4, 128), family.unpack(q.reshape(5, -1), 4, 300)
    assert words.shape == (2, 5, 32)
    for n, k in ((0, 0), (4, 299), (3, 255), (2, 256), (1, 33)):
        assert (int(words[k // 256, n, k % 32]) >> (k % 256 // 32 * 4)) & 15 == flat[n, k]
    assert int(words[1, 0, 31]) >> 4 & 15 == 0  # k = 256 + 63: beyond the last


def test_scales_are_kept_exactly():
    assert family.pack_scales(torch.tensor([[0.5, 65504.0]]), 1).dtype == torch.float16
    assert family.pack_scales(torch.tensor([[0.5, 2.0**100]]), 1).dtype == torch.bfloat16
    assert family.pack_scales(torch.tensor([[0.1, 0.5]]), 1).dtype == torch.float32


@pytest.mark.parametrize("n,k", [(4096, 4096), (8192, 8192), (100, 24)])
@pytest.mark.parametrize("sample_rows", [1, 16, 17, 512])
def test_the_split_asks_nothing_of_the_batch(n, k, sample_rows):
    make = lambda batch: family.Problem(  # noqa: E731
        batch * sample_rows, n, k, 4, 32, "float16", "none", False, sample_rows
    )
    assert family.default(make(1)) == family.default(make(64))
    assert family.default(make(1)) in family.configs(make(1)) or k == 24
    assert len(family.configs(make(1))) <= 24


# ------------------------------------------------------------------------------------------------------------- compiled


def compiled(problem, config):
    pointers = {"a_ptr": TYPES[problem.dtype], "words_ptr": "*i32", "scales_ptr": "*fp16", "zeros_ptr": "*u8"}
    half = {"bias_ptr": TYPES[problem.dtype], "y_ptr": "*fp32" if config.split > 1 else TYPES[problem.dtype]}
    numbers = dict.fromkeys(("m", "n", "k", "chunks"), "i32")
    return compile(
        "fastinfer.cuda.kernels.weight_only:_product_kernel", {**pointers, **half, **numbers}, family.meta(problem, config),
        {"num_warps": config.warps, "num_stages": config.stages},
    )  # fmt: skip


@pytest.mark.parametrize(
    "bits,dtype,rows", [(4, "bfloat16", 1), (4, "float16", 512), (8, "float16", 1), (4, "float32", 512)]
)
def test_compiles_for_hopper(bits, dtype, rows):
    problem = family.Problem(rows, 4096, 4096, bits, 128, dtype, "int", True, rows)
    c = compiled(problem, family.default(problem))
    assert c.spills == 0 and c.shared <= SHARED
    if dtype != "float32":
        assert c.wgmma or c.count(r"mma\.sync") > 0
        assert c.count(r"cp\.async\.cg\.shared\.global \[[^]]*\], \[[^]]*\], 0x10") > 0  # words, 16 bytes a thread


# ----------------------------------------------------------------------------------------------------- through the plan


@pytest.mark.parametrize("zeros", ["none", "int", "float"])
@pytest.mark.parametrize("precision,limit", [("fp32", 1e-6), ("f16", 1e-3), ("bf16", 8e-3)])
def test_node(zeros, precision, limit):
    case = Case(3, 33, 160, 4, 32, zeros)
    inputs = [case.a.numpy().reshape(3, 1, 160), case.q, case.scales, case.zero_points, None, case.bias.numpy()]
    outputs, steps = run_node(
        "MatMulNBits", inputs, domain="com.microsoft", constants=(1, 2, 3, 5), precision=precision, K=160, N=33, bits=4,
        block_size=32,
    )  # fmt: skip
    kernel = "weight_only_4 decode" if DEVICE.type == "cpu" or precision == "fp32" or zeros == "float" else ""
    assert any(s.startswith((kernel, "w4a16")) for s in steps), steps
    assert error(torch.from_numpy(outputs[0]).reshape(3, 33), case.expected()) < limit


def test_no_rows():
    case = Case(0, 33, 160, 4, 32, "none")
    outputs, _ = run_node(
        "MatMulNBits", [case.a.numpy(), case.q, case.scales], domain="com.microsoft", constants=(1, 2), K=160, N=33, bits=4,
        block_size=32,
    )  # fmt: skip
    assert outputs[0].shape == (0, 33)


@pytest.mark.parametrize("bits,block", [(4, 32), (8, 32), (8, 256)])  # the last: channel-wise
@pytest.mark.parametrize("zeros", ["none", "int"])
@pytest.mark.parametrize("precision,limit", [("f16", 1e-3), ("bf16", 4e-3)])
def test_node_through_the_native_kernel(zeros, precision, limit, bits, block, monkeypatch):
    """What the binder prepares for wna16, computed by the kernel's arithmetic on the host."""
    pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")

    def on_host(a, weights, meta, bias, y, *, bits, block, warps, split):
        exact, bf16 = torch.empty(y.shape), a.dtype == torch.bfloat16
        native.wna16_on_host(
            a.float(), weights, meta, bias.float(), exact, bits=bits, block=block, bf16=bf16, split=split
        )
        y.copy_(exact)

    if DEVICE.type == "cpu":
        monkeypatch.setattr(native, "missing", lambda device: "")
        monkeypatch.setattr(native, "wna16", on_host)
    case = Case(5, 33, 160, bits, block, zeros)
    inputs = [case.a.numpy().reshape(5, 1, 160), case.q, case.scales, case.zero_points, None, case.bias.numpy()]
    outputs, steps = run_node(
        "MatMulNBits", inputs, domain="com.microsoft", constants=(1, 2, 3, 5), precision=precision, K=160, N=33, bits=bits,
        block_size=block,
    )  # fmt: skip
    assert f"w{bits}a16" in steps
    assert error(torch.from_numpy(outputs[0]).reshape(5, 33), case.expected()) < limit


def test_native_layouts_refuse_wrong_sizes():
    pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")
    with pytest.raises(ValueError, match="needed: uint8"):
        native.wn_weights(torch.zeros(3, dtype=torch.uint8), 32, 64, 4, 32)
    with pytest.raises(ValueError, match="3 scales"):
        native.wn_meta(torch.zeros(3), None, 32, 64, 8, 32)


def test_candidates_of_the_native_kernel():
    for k in (24, 4096):
        problem = wna16.Problem(4096, k, 8, 32, "float16")
        assert wna16.default(problem) in wna16.configs(problem)
    assert len(wna16.configs(problem)) == 9
