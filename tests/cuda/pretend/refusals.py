# SPDX-License-Identifier: Apache-2.0
"""What a CUDA device does not take where the CPU does, as far as a model can meet it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "addr"}
_FLOATS_ONLY = _PRODUCTS | {
    "convolution", "_convolution", "convolution_overrideable", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d",
    "avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d", "grid_sampler_3d", "native_layer_norm",
    "native_group_norm", "native_batch_norm", "_softmax", "_log_softmax", "im2col", "col2im",
}  # fmt: skip
_BYTES_TOO = {"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d"}
# Their result's size, or a Python number, comes from the data: the host waits.
WAITING = {
    "nonzero", "masked_select", "unique_dim", "_unique", "_unique2", "unique_consecutive", "bincount", "histc", "multinomial",
    "_local_scalar_dense", "equal", "is_nonzero", "repeat_interleave", "linalg_eig", "linalg_eigvals", "_linalg_eigh",
    "unique_dim_consecutive",
}  # fmt: skip
# Operators that take a host tensor beside a device's: indices are uploaded, copies cross over.
_CROSSING = {"copy_", "_to_copy", "index", "_index_put_impl_", "index_put", "index_put_", "set_", "resize_"}


def name_of(func: Any) -> str:
    return str(func._schema.name).split("::")[-1]


def types(func: Any, tensors: Sequence[torch.Tensor]) -> None:
    """Raises as torch does for what CUDA has no kernel for."""
    name = name_of(func)
    if not tensors or (name not in _FLOATS_ONLY and name not in _BYTES_TOO):
        return
    dtype = tensors[0].dtype
    if dtype.is_floating_point and dtype.itemsize > 1 or dtype.is_complex:
        return
    if name in _BYTES_TOO and dtype == torch.uint8:
        return
    raise RuntimeError(f"\"{name}_cuda\" not implemented for '{str(dtype).removeprefix('torch.')}'")


def places(func: Any, on_device: Sequence[torch.Tensor], elsewhere: Sequence[torch.Tensor]) -> None:
    """Raises as torch does where tensors meet that are not in one place. Scalars on the host may."""
    name = name_of(func)
    if not on_device or not elsewhere or name in _CROSSING:
        return
    if name in {"cat", "stack"} | _PRODUCTS or any(t.dim() > 0 for t in elsewhere):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})"
        )


def masks(func: Any, args: Sequence[Any]) -> bool:
    """Whether indexing by these needs the number of true elements, which the host waits for."""
    name = name_of(func)
    if name not in ("index", "index_put_", "index_put", "_index_put_impl_"):
        return False
    indices = [t for t in args[1] if t is not None]
    if not any(t.dtype in (torch.bool, torch.uint8) for t in indices):
        return False
    return not (name != "index" and len(indices) == 1 and args[2].numel() == 1)  # that is masked_fill


def host_indices(func: Any, args: Sequence[Any]) -> bool:
    """Whether indices lie on the host: they are uploaded from pageable memory."""
    if name_of(func) not in ("index", "index_put_", "index_put", "_index_put_impl_"):
        return False
    return any(t is not None and t.device.type == "cpu" for t in args[1])
