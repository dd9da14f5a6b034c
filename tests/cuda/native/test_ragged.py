# SPDX-License-Identifier: Apache-2.0
"""kernels/batching/ragged.cu: its index map on the host, its machine code, and, with a device, its results."""

import cuda_binary as binary
import numpy as np
import pytest
import torch

from fastinfer.cuda import native

_cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [5, 5, 5, 5], [0, 0, 0, 1]])
def test_pieces_cover_the_packed_tensor_once(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    ragged = _cuda.Ragged(0, 0, 0, len(lengths), 5, offsets[-1], 12)
    covered = np.zeros(offsets[-1] * 12, int)
    for s, length in enumerate(lengths):
        padded, packed, size = ragged.piece(s, offsets[s], offsets[s + 1])
        assert padded == s * 5 * 12 and size == length * 12
        covered[packed : packed + size] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("begin,end", [(-7, 3), (8, 4), (0, 1 << 30), (11, 99), (1 << 31, 5), (-5, -1)])
def test_wrong_offsets_stay_inside(begin, end):
    padded, packed, size = _cuda.Ragged(0, 0, 0, 2, 5, 10, 8).piece(1, begin, end)
    assert padded == 40 and 0 <= size <= 40 and 0 <= packed and packed + size <= 80


@pytest.mark.parametrize("start,row,width", [(0, 64, 16), (8, 64, 8), (0, 6, 2), (4, 64, 4), (0, 7, 1), (1, 64, 1)])
def test_accesses_are_as_wide_as_addresses_allow(start, row, width):
    assert _cuda.Ragged(256 + start, 512, 0, 1, 1, 1, row).width == width
    assert _cuda.Ragged(512, 256 + start, 0, 1, 1, 1, row).width == width


def test_sixteen_byte_loads_before_stores():
    for name in binary.kernels("ragged_kernelI5uint4"):
        code = [i for i in binary.instructions()[name] if i.startswith(("LDG.E.128", "STG.E.128"))]
        assert [i[:3] for i in code] == ["LDG"] * 4 + ["STG"] * 4, (name, code)


def test_fits_eight_blocks_an_sm():
    for name in binary.kernels("ragged_kernel"):
        assert binary.resources()[name].registers * 256 * 8 <= 65536 * 1.25, name  # at least six of them


@pytest.mark.gpu
@pytest.mark.parametrize("dtype,f", [(torch.float32, 64), (torch.float16, 3), (torch.int8, 7), (torch.bfloat16, 768)])
def test_on_a_device(dtype, f):
    lengths = [5, 0, 17, 1, 9]
    offsets = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device="cuda")
    padded = torch.randint(-99, 99, (5, 17, f), device="cuda").to(dtype)
    packed = torch.full((32, f), 77, device="cuda").to(dtype)
    native.pack_rows(padded, offsets, packed)
    expected = torch.cat([padded[s, :n] for s, n in enumerate(lengths)])
    assert torch.equal(packed, expected)
    back = torch.full_like(padded, 77)
    native.unpack_rows(packed, offsets, back)
    for s, n in enumerate(lengths):
        assert torch.equal(back[s, :n], padded[s, :n]) and not back[s, n:].any()
