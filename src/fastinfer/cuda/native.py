# SPDX-License-Identifier: Apache-2.0
"""The CUDA C++ kernels (module fastinfer._cuda, built where nvcc is) over torch tensors, on torch's current stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastinfer.cuda.device import open_device

if TYPE_CHECKING:
    from fastinfer import _cuda
else:
    try:
        from fastinfer import _cuda
    except ImportError:
        _cuda = None  # built without a CUDA compiler


def built() -> list[Path]:
    """The module's file, if there is one."""
    return [] if _cuda is None else [Path(str(_cuda.__file__))]


def missing(device: torch.device) -> str:
    """Why the kernels cannot be used on `device`; empty if they can. They are built for compute capability 9.0 and, as PTX,
    what follows it."""
    if _cuda is None:
        return "fastinfer was built without CUDA C++ kernels (no nvcc, or FASTINFER_CUDA=OFF)"
    if device.type != "cuda":
        return "CUDA C++ kernels need a device"
    capability = open_device(str(device)).capability
    return "" if capability >= 90 else f"CUDA C++ kernels need compute capability 9.0, this is {capability / 10}"


def pack_rows(padded: torch.Tensor, offsets: torch.Tensor, packed: torch.Tensor) -> None:
    """padded [sequences, extent, ...] → packed [total, ...]; offsets: int32 [sequences + 1] on the device. Rows of `packed`
    outside [offsets[0], offsets[-1]) are not written. Offsets outside the tensors are clamped."""
    _cuda.pack_ragged(_ragged(padded, packed, offsets, padded, packed), _stream(padded))


def unpack_rows(packed: torch.Tensor, offsets: torch.Tensor, padded: torch.Tensor) -> None:
    """The way back; rows beyond a sequence's length become 0."""
    _cuda.unpack_ragged(_ragged(packed, padded, offsets, padded, packed), _stream(padded))


def _ragged(
    source: torch.Tensor, target: torch.Tensor, offsets: torch.Tensor, padded: torch.Tensor, packed: torch.Tensor
) -> Any:
    sequences, extent, *row = padded.shape
    same = source.dtype == target.dtype and list(packed.shape[1:]) == row and packed.ndim >= 1
    dense = padded.is_contiguous() and packed.is_contiguous() and offsets.is_contiguous()
    if not same or not dense or offsets.dtype != torch.int32 or tuple(offsets.shape) != (sequences + 1,):
        raise ValueError(
            f"{source.dtype} {tuple(source.shape)} to {target.dtype} {tuple(target.shape)} by {offsets.dtype} "
            f"{tuple(offsets.shape)}; needed: dense [sequences, extent, ...] and [total, ...] of one type, int32 [sequences + 1]"
        )
    row_bytes = padded.dtype.itemsize
    for extent_of_row in row:
        row_bytes *= extent_of_row
    return _cuda.Ragged(
        source.data_ptr(), target.data_ptr(), offsets.data_ptr(), sequences, extent, packed.shape[0], row_bytes
    )


def _stream(tensor: torch.Tensor) -> int:
    return torch.cuda.current_stream(tensor.device).cuda_stream


# ------------------------------------------------------------------------------------------- kernels/nbits/wna16.cuh


def wn_weights(q: torch.Tensor, n: int, k: int, bits: int, block: int) -> torch.Tensor:
    """MatMulNBits' B, uint8 [n, ceil(k / block), block * bits / 8] → int32 in the order that lanes read. On the host."""
    shift = block.bit_length() - 1
    pairs, chunks, _ = _cuda.wn_extents(n, k, bits, shift)
    host = q.cpu().contiguous()
    if host.dtype != torch.uint8 or host.numel() != n * -(-k // block) * block * bits // 8:
        raise ValueError(f"{host.dtype} {tuple(host.shape)}; needed: uint8, {n=}, {k=}, {bits=}, {block=}")
    out = torch.empty((pairs, chunks, 64 * bits), dtype=torch.int32)
    _cuda.wn_shuffle(n, k, bits, shift, host.data_ptr(), out.data_ptr())
    return out.to(q.device)


def wn_meta(scales: torch.Tensor, zeros: torch.Tensor | None, n: int, k: int, bits: int, block: int) -> torch.Tensor:
    """Scales [n, ceil(k / block)] and zero points, packed in uint8 as MatMulNBits has them (None: half of the range) → int32, a
    word each."""
    shift = block.bit_length() - 1
    pairs, _, blocks = _cuda.wn_extents(n, k, bits, shift)
    host = scales.cpu().float().contiguous()
    packed = None if zeros is None else zeros.cpu().contiguous()
    given = -(-k // block)
    if host.numel() != n * given or (packed is not None and packed.numel() != n * -(-given * bits // 8)):
        raise ValueError(
            f"{host.numel()} scales, {0 if packed is None else packed.numel()} zero points; {n=}, {k=}, {bits=}, {block=}"
        )
    out = torch.empty((pairs, blocks, 32), dtype=torch.int32)
    _cuda.wn_shuffle_meta(
        n, k, bits, shift, host.data_ptr(), 0 if packed is None else packed.data_ptr(), out.data_ptr()
    )
    return out.to(scales.device)


def wna16(
    a: torch.Tensor, weights: torch.Tensor, meta: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor,
    *, bits: int, block: int, warps: int = 0, split: int = 0,
) -> None:  # fmt: skip
    """y [..., n] = a [..., k] times the weights, + bias [n]; a, bias, y: float16 or bfloat16; warps, split: 0 chooses."""
    _cuda.wna16(_wna16(a, weights, meta, bias, y, bits, block, a.dtype == torch.bfloat16, warps, split), _stream(a))


def wna16_on_host(
    a: torch.Tensor, weights: torch.Tensor, meta: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor,
    *, bits: int, block: int, bf16: bool, split: int = 0,
) -> None:  # fmt: skip
    """The kernel's arithmetic for tests: float32 tensors on the host that hold numbers of the half type."""
    _cuda.wna16_on_host(_wna16(a, weights, meta, bias, y, bits, block, bf16, 0, split))


def _wna16(
    a: torch.Tensor, weights: torch.Tensor, meta: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor, bits: int, block: int,
    bf16: bool, warps: int, split: int,
) -> Any:  # fmt: skip
    n, k = y.shape[-1], a.shape[-1]
    shift = block.bit_length() - 1
    pairs, chunks, blocks = _cuda.wn_extents(n, k, bits, shift)
    if tuple(weights.shape) != (pairs, chunks, 64 * bits) or tuple(meta.shape) != (pairs, blocks, 32):
        raise ValueError(
            f"weights {tuple(weights.shape)}, meta {tuple(meta.shape)} are not those of n={n}, k={k}, {bits=}, {block=}"
        )
    bias_at = 0 if bias is None else bias.data_ptr()
    return _cuda.WnA16(
        a.data_ptr(), weights.data_ptr(), meta.data_ptr(), bias_at, y.data_ptr(), a.numel() // max(k, 1), n, k, bits, shift, bf16,
        warps, split,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- kernels/tiny/mlp.cuh

ACTIVATIONS = ("", "relu", "gelu", "tanh", "sigmoid", "silu")  # in the order of MlpAct
FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # in the order of MlpType
Layer = tuple[torch.Tensor, "torch.Tensor | None", str]  # weights of mlp_weights, bias [out], activation


def mlp_weights(weights: torch.Tensor) -> torch.Tensor:
    """[out, in] → rows of a multiple of 8 numbers, zeros at their ends."""
    return torch.nn.functional.pad(weights, (0, -weights.shape[1] % 8)).contiguous()


def mlp(x: torch.Tensor, layers: Sequence[Layer], y: torch.Tensor) -> None:
    """x [m, in] through at most 16 dense layers → y [m, out], in one launch. All of one type: float32, float16 or bfloat16."""
    _cuda.mlp(_mlp(x, layers, y), _stream(x))


def mlp_on_host(x: torch.Tensor, layers: Sequence[Layer], y: torch.Tensor) -> None:
    """The kernel's partition and order of sums for tests: float32 tensors on the host."""
    _cuda.mlp_on_host(_mlp(x, layers, y))


def _mlp(x: torch.Tensor, layers: Sequence[Layer], y: torch.Tensor) -> Any:
    entries, features = [], x.shape[1]
    for at, (weights, bias, activation) in enumerate(layers):
        out, padded = weights.shape
        tensors = [t for t in (x, y, weights, bias) if t is not None]
        if padded != -(-features // 8) * 8 or (bias is not None and tuple(bias.shape) != (out,)):
            raise ValueError(f"layer {at} takes {features} features; its weights are {tuple(weights.shape)}")
        if any(t.dtype != x.dtype or not t.is_contiguous() for t in tensors) or x.dtype not in FLOATS:
            raise ValueError(f"layer {at}: types {[str(t.dtype) for t in tensors]}; needed: one float type, dense")
        bias_at = 0 if bias is None else bias.data_ptr()
        entries.append((weights.data_ptr(), bias_at, features, out, ACTIVATIONS.index(activation)))
        features = out
    if tuple(y.shape) != (x.shape[0], features):
        raise ValueError(f"the result is {tuple(y.shape)}; needed: {(x.shape[0], features)}")
    return _cuda.Mlp(x.data_ptr(), y.data_ptr(), x.shape[0], FLOATS.index(x.dtype), entries)
