# SPDX-License-Identifier: Apache-2.0
"""The CUDA C++ kernels (module fastinfer._cuda, built where nvcc is) over torch tensors, on torch's current stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fastinfer.cuda.device import INTERPRET, Device

if TYPE_CHECKING:
    from fastinfer import _cuda
else:
    try:
        from fastinfer import _cuda
    except ImportError:
        _cuda = None  # built without a CUDA compiler


def missing(device: Device) -> str:
    """Why the kernels cannot be used on `device`; empty if they can. They are built for compute capability 9.0 and, as PTX,
    what follows it."""
    if _cuda is None:
        return "fastinfer was built without CUDA C++ kernels (no nvcc, or FASTINFER_CUDA=OFF)"
    if INTERPRET or device.torch.type != "cuda":
        return "CUDA C++ kernels need a device"
    if device.capability < 90:
        return f"CUDA C++ kernels need compute capability 9.0, this is {device.capability / 10}"
    return ""


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
