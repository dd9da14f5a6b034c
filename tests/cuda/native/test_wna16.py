# SPDX-License-Identifier: Apache-2.0
"""kernels/nbits/wna16.cu: reordering, dequantisation and index maps on the host, lane by lane, against float64; the machine
code; and, with a device, the results."""

import re

import cuda_binary as binary
import numpy as np
import pytest
import torch

from fastinfer.cuda import native

_cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")


class Case:
    def __init__(self, m, n, k, block, zeros=True, seed=0, dtype=torch.float16, bits=4):
        r = torch.Generator().manual_seed(seed)
        blocks = -(-k // block)
        self.block, self.n, self.k, self.bits = block, n, k, bits
        random = lambda *shape: torch.randint(0, 256, shape, generator=r, dtype=torch.uint8)  # noqa: E731
        self.q = random(n, blocks, block * bits // 8)
        self.scales = (torch.rand((n, blocks), generator=r) * 0.1 + 0.01).to(dtype)
        self.zeros = random(n, -(-blocks * bits // 8)) if zeros else None
        self.a = torch.randn((m, k), generator=r).to(dtype)
        self.bias = torch.randn(n, generator=r).to(dtype)

    def fields(self, packed):
        n = self.n
        return (torch.stack([packed & 15, packed >> 4], -1) if self.bits == 4 else packed).reshape(n, -1).double()

    def weights(self):
        """float64 [n, k]."""
        n, blocks = self.scales.shape
        q = self.fields(self.q).reshape(n, blocks, self.block)
        zero = 2.0 ** (self.bits - 1) if self.zeros is None else self.fields(self.zeros)[:, :blocks, None]
        return ((q - zero) * self.scales.double()[:, :, None]).reshape(n, -1)[:, : self.k]

    def expected(self):
        return self.a.double() @ self.weights().T + self.bias.double()

    def shuffled(self):
        return (
            native.wn_weights(self.q, self.n, self.k, self.bits, self.block),
            native.wn_meta(self.scales, self.zeros, self.n, self.k, self.bits, self.block),
        )

    def on_host(self, split=0, bias=True):
        y = torch.full((len(self.a), self.n), float("nan"))
        native.wna16_on_host(
            self.a.float(), *self.shuffled(), self.bias.float() if bias else None, y, bits=self.bits, block=self.block,
            bf16=self.a.dtype == torch.bfloat16, split=split,
        )  # fmt: skip
        return y


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("n,k,block", [(32, 64, 32), (5, 24, 32), (48, 320, 64), (33, 1000, 128), (64, 96, 256)])
def test_unshuffle_undoes_shuffle(n, k, block, bits):
    q = Case(1, n, k, block, bits=bits).q
    shift = block.bit_length() - 1
    shuffled, back = native.wn_weights(q, n, k, bits, block), torch.full_like(q, 77)
    _cuda.wn_unshuffle(n, k, bits, shift, shuffled.data_ptr(), back.data_ptr())
    kept = (torch.arange(q.shape[1] * q.shape[2]) < k * bits // 8).reshape(q.shape[1:])
    assert torch.equal(back * kept, q * kept)
    fields = lambda t: sum(((t.view(torch.uint8) >> s) & 2**bits - 1).long().sum() for s in range(0, 8, bits))  # noqa: E731
    assert fields(shuffled) == fields(q * kept)  # nothing twice, zeros elsewhere


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "m,n,k,block,split",
    [(1, 32, 64, 32, 1), (3, 40, 200, 32, 2), (8, 32, 1024, 128, 4), (9, 64, 640, 64, 3), (16, 17, 96, 256, 8), (2, 32, 704, 1024, 2)],
)  # fmt: skip
def test_lanes_compute_the_product(dtype, m, n, k, block, split, bits):
    case = Case(m, n, k, block, zeros=split != 2, dtype=dtype, seed=n + k, bits=bits)
    # Nothing is rounded but float32 sums; those of bytes are 16 times larger than what is left of them.
    error = (case.on_host(split).double() - case.expected()).norm() / case.expected().norm()
    assert error < (3e-7 if bits == 4 else 6e-7), error


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_byte_and_zero_point_is_exact(dtype):
    """One weight a row, against an activation of 1: 256 bytes by 256 zero points, without any rounding."""
    case = Case(1, 256, 256 * 32, 32, dtype=dtype, bits=8)
    case.q[:] = 0
    case.q[:, :, 5] = torch.arange(256, dtype=torch.uint8)[:, None]
    case.zeros[:] = torch.arange(256, dtype=torch.uint8)[None, :]
    case.scales[:] = 1
    for block in (0, 1, 100, 128, 255):
        case.a[:] = 0
        case.a[0, 32 * block + 5] = 1
        assert torch.equal(case.on_host(1, bias=False)[0].double(), torch.arange(256.0).double() - block)


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_do_not_depend_on_company(bits):
    case = Case(16, 32, 512, 128, bits=bits)
    full = case.on_host(bias=False)
    case.a = case.a[11:12]
    assert torch.equal(full[11:12], case.on_host(bias=False))


@pytest.mark.parametrize("bits,limit", [(4, 2.0**-20), (8, 2.0**-16)])
def test_scales_of_half_types_are_exact_and_floats_nearly(bits, limit):
    scales = torch.tensor([[1.0009765625, 6e-5, 65504.0, -0.1]]).half()
    for given, bound in ((scales, 0), (torch.tensor([[0.1234567, 1e-30, 3.4028235e38, -7.7]]), limit)):
        meta = native.wn_meta(given, None, 1, 128, bits, 32).numpy().view(np.uint32)
        words, mask = meta[0, :4, 0], np.uint32(2**bits - 1)
        assert (words & mask == 2 ** (bits - 1)).all()
        back = (words & ~mask).view(np.float32)
        assert (np.abs(back / given.float().numpy()[0] - 1) <= bound).all()


SHAPES = [(4096, 4096), (8192, 8192), (14336, 4096), (4096, 14336), (6144, 4096), (4096, 8192), (64, 64), (32, 65536)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("n,k", SHAPES)
def test_schedules_fill_the_device(n, k, bits):
    """No SM has much more than its share, and enough is in flight for the memory's latency."""
    warps, split = _cuda.wn_schedule(n, k, bits)
    assert warps in (2, 4) and split in (1, 2, 4, 8) and (split == 1 or k / 64 / split >= 4)
    if n * k >= 4096 * 4096:
        blocks = -(-n // (32 * warps)) * split
        most = -(-blocks // 132)
        assert blocks / 132 / most >= 0.84, (blocks, most)
        assert min(most, 16 // warps) * warps * 7 >= 40, (warps, split)  # KiB in flight


def test_machine_code():
    names = binary.kernels("wna16_kernel")
    assert len(names) == 16
    for name in names:
        code, used = binary.instructions()[name], binary.resources()[name]
        bits, rows = (int(n) for n in re.search(r"ELi(\d)ELi(\d)E", name).groups())
        kind = "BF16" if "WnBFloat" in name else "F32"
        products = [i for i in code if i.startswith("HMMA.16816.F32") and kind in i]
        assert len(products) == 8 * rows, name  # 4 products of 2 tiles
        assert any(i.startswith("LDGSTS.E.BYPASS.128") for i in code), name
        assert used.registers <= 128 and used.stack == 0, (name, used)  # 4 blocks of 128 threads an SM
        # 16 bytes of weights a lane for every 512 of a step, rows of A twice.
        assert sum(i.startswith("LDS.128") for i in code) >= bits // 2 + 2 * rows, name
        waits, begins = (next(i for i, c in enumerate(code) if c.startswith(op)) for op in ("ACQBULK", "PREEXIT"))
        asked = [i for i, c in enumerate(code) if c.startswith("LDGSTS") and i < waits]
        assert begins < waits and len(asked) >= 3 * bits // 2, name  # the ring is asked for before A is waited for
        assert not any(c.startswith("LDG.E") for c in code[:waits]), name


# Instructions of a warp for a KiB of weights, in the loop over steps: an SM has 4 * 53 clocks' worth at 4.3 TB/s.
@pytest.mark.parametrize("rows,most", [(1, 190), (2, 215)])
def test_memory_stays_the_bound(rows, most):
    for name in binary.kernels("wna16_kernel"):
        if f"ELi{rows}ELi" not in name:
            continue
        bits = int(re.search(r"ELi(\d)ELi", name).group(1))
        loop = binary.innermost_loop(name, "HMMA")
        assert len(loop) / (bits / 4) <= most, (name, len(loop))


@pytest.mark.gpu
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "m,n,k,block", [(1, 4096, 4096, 128), (16, 256, 1000, 32), (5, 100, 8192, 64), (33, 96, 512, 128)]
)
def test_on_a_device(dtype, m, n, k, block, bits):
    case = Case(m, n, k, block, dtype=dtype, bits=bits)
    y = torch.full((m, n), float("nan"), dtype=dtype, device="cuda")
    weights, meta = (t.cuda() for t in case.shuffled())
    for split in (0, 1, 8):
        native.wna16(case.a.cuda(), weights, meta, case.bias.cuda(), y, bits=bits, block=block, split=split)
        error = (y.cpu().double() - case.expected()).norm() / case.expected().norm()
        assert error < (1e-3 if dtype == torch.float16 else 4e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("between", ["", "copy", "kernel"])
def test_launches_that_overlap_read_what_was_written(between):
    """Each product reads the one before it; in one graph, and with a wait after each launch: the same bits."""
    layers = [Case(1, 2048, 2048, 128, seed=s, bits=4 + 4 * (s % 2)) for s in range(8)]
    for case in layers:
        case.scales /= 2**case.bits  # what comes out is about as large as what goes in
    moved = [[t.cuda() for t in case.shuffled()] for case in layers]
    x = [torch.empty((4, 2048), dtype=torch.float16, device="cuda") for _ in range(9)]
    first = torch.randn((4, 2048), device="cuda").half()

    def chain(wait):
        x[0].copy_(first)
        for i, (case, (weights, meta)) in enumerate(zip(layers, moved)):
            native.wna16(x[i], weights, meta, None, x[i + 1], bits=case.bits, block=128)
            if between == "kernel":
                x[i + 1].neg_()
            elif between == "copy":
                x[i + 1].copy_(x[i + 1].clone())
            if wait:
                torch.cuda.synchronize()

    chain(True)
    expected = x[-1].clone()
    assert expected.isfinite().all() and expected.abs().max() > 1e-3
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chain(False)
    for _ in range(50):
        for t in x:
            t.fill_(float("nan"))
        graph.replay()
        assert torch.equal(x[-1], expected)
