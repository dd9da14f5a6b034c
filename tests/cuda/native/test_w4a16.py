# SPDX-License-Identifier: Apache-2.0
"""kernels/nbits/w4a16.cu: reordering, dequantisation and index maps on the host, lane by lane, against float64; the machine
code; and, with a device, the results."""

import cuda_binary as binary
import numpy as np
import pytest
import torch

from fastinfer.cuda import native

_cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")


class Case:
    def __init__(self, m, n, k, block, zeros=True, seed=0, dtype=torch.float16):
        r = torch.Generator().manual_seed(seed)
        blocks = -(-k // block)
        self.block, self.n, self.k = block, n, k
        self.q = torch.randint(0, 256, (n, blocks, block // 2), generator=r, dtype=torch.uint8)
        self.scales = (torch.rand((n, blocks), generator=r) * 0.1 + 0.01).to(dtype)
        self.zeros = torch.randint(0, 256, (n, (blocks + 1) // 2), generator=r, dtype=torch.uint8) if zeros else None
        self.a = torch.randn((m, k), generator=r).to(dtype)
        self.bias = torch.randn(n, generator=r).to(dtype)

    def weights(self):
        """float64 [n, k]."""
        n, blocks = self.scales.shape
        split = lambda packed: torch.stack([packed & 15, packed >> 4], -1).reshape(n, -1)  # noqa: E731
        q = split(self.q).double().reshape(n, blocks, self.block)
        zero = 8.0 if self.zeros is None else split(self.zeros)[:, :blocks, None].double()
        return ((q - zero) * self.scales.double()[:, :, None]).reshape(n, -1)[:, : self.k]

    def expected(self):
        return self.a.double() @ self.weights().T + self.bias.double()

    def shuffled(self):
        return (
            native.w4_weights(self.q, self.n, self.k, self.block),
            native.w4_meta(self.scales, self.zeros, self.n, self.k, self.block),
        )


@pytest.mark.parametrize("n,k,block", [(32, 64, 32), (5, 24, 32), (48, 320, 64), (33, 1000, 128), (64, 96, 256)])
def test_unshuffle_undoes_shuffle(n, k, block):
    q = Case(1, n, k, block).q
    shift = block.bit_length() - 1
    shuffled, back = native.w4_weights(q, n, k, block), torch.full_like(q, 77)
    _cuda.w4_unshuffle(n, k, shift, shuffled.data_ptr(), back.data_ptr())
    kept = (torch.arange(q.shape[1] * block // 2) < k // 2).reshape(q.shape[1:])
    assert torch.equal(back * kept, q * kept)
    nibbles = lambda t: sum(((t.view(torch.uint8) >> s) & 15).long().sum() for s in (0, 4))  # noqa: E731
    assert nibbles(shuffled) == nibbles(q * kept)  # nothing twice, zeros elsewhere


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "m,n,k,block,split",
    [(1, 32, 64, 32, 1), (3, 40, 200, 32, 2), (8, 32, 1024, 128, 4), (9, 64, 640, 64, 3), (16, 17, 96, 256, 8), (2, 32, 704, 1024, 2)],
)  # fmt: skip
def test_lanes_compute_the_product(dtype, m, n, k, block, split):
    case = Case(m, n, k, block, zeros=split != 2, dtype=dtype, seed=n + k)
    y = torch.full((m, n), float("nan"))
    native.w4a16_on_host(
        case.a.float(), *case.shuffled(), case.bias.float(), y, block=block, bf16=dtype == torch.bfloat16, split=split
    )
    # Nothing is rounded but float32 sums.
    error = (y.double() - case.expected()).norm() / case.expected().norm()
    assert error < 3e-7, error


def test_rows_do_not_depend_on_company():
    case = Case(16, 32, 512, 128)
    full, one = torch.empty((16, 32)), torch.empty((1, 32))
    native.w4a16_on_host(case.a.float(), *case.shuffled(), None, full, block=128, bf16=False)
    native.w4a16_on_host(case.a[11:12].float(), *case.shuffled(), None, one, block=128, bf16=False)
    assert torch.equal(full[11:12], one)


def test_scales_of_half_types_are_exact_and_floats_nearly():
    scales = torch.tensor([[1.0009765625, 6e-5, 65504.0, -0.1]]).half()
    for given, limit in ((scales, 0), (torch.tensor([[0.1234567, 1e-30, 3.4028235e38, -7.7]]), 2.0**-20)):
        meta = native.w4_meta(given, None, 1, 128, 32).numpy().view(np.uint32)
        words = meta[0, :4, 0]
        assert (words & 15 == 8).all()
        back = (words & ~np.uint32(15)).view(np.float32)
        assert (np.abs(back / given.float().numpy()[0] - 1) <= limit).all()


@pytest.mark.parametrize("n,k", [(4096, 4096), (8192, 8192), (14336, 4096), (4096, 14336), (64, 64), (32, 65536)])
def test_schedules_fill_the_device(n, k):
    warps, split = _cuda.w4_schedule(n, k)
    assert warps in (2, 4) and split in (1, 2, 4, 8) and (split == 1 or k / 64 / split >= 4)
    if n * k >= 4096 * 4096:
        assert -(-n // (32 * warps)) * split >= 132


def test_machine_code():
    names = binary.kernels("w4a16_kernel")
    assert len(names) == 8
    for name in names:
        code, used = binary.instructions()[name], binary.resources()[name]
        rows = 2 if "ELi2E" in name else 1
        kind = "BF16" if "W4BFloat" in name else "F32"
        products = [i for i in code if i.startswith("HMMA.16816.F32") and kind in i]
        assert len(products) == 8 * rows, name  # 4 products of 2 tiles
        assert any(i.startswith("LDGSTS.E.BYPASS.128") for i in code), name
        assert used.registers <= 128 and used.stack == 0, (name, used)  # 4 blocks of 128 threads an SM
        # The words of 8 weights, 16 bytes a lane: 2 tiles, rows of A twice.
        assert sum(i.startswith("LDS.128") for i in code) >= 2 + 2 * rows, name


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "m,n,k,block", [(1, 4096, 4096, 128), (16, 256, 1000, 32), (5, 100, 8192, 64), (33, 96, 512, 128)]
)
def test_on_a_device(dtype, m, n, k, block):
    case = Case(m, n, k, block, dtype=dtype)
    y = torch.full((m, n), float("nan"), dtype=dtype, device="cuda")
    weights, meta = (t.cuda() for t in case.shuffled())
    for split in (0, 1, 8):
        native.w4a16(case.a.cuda(), weights, meta, case.bias.cuda(), y, block=block, split=split)
        error = (y.cpu().double() - case.expected()).norm() / case.expected().norm()
        assert error < (1e-3 if dtype == torch.float16 else 4e-3)
